-- Confirm the token of a lock that has a majority: the part that one node has.
--
-- KEYS  1 lock, 2 fence
-- ARGV  1 owner value   2 token
-- Reply 1: the key holds the value, and the fence is at the token or above
--       0: not the holder (any more)
--
-- Invariant: the fence never falls, so that whoever gets this node's vote next
-- has a higher token.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
local last = redis.pcall('GET', KEYS[2])
last = type(last) == 'string' and tonumber(last) or 0
if not (last >= tonumber(ARGV[2])) then
  redis.call('SET', KEYS[2], ARGV[2], 'PX', '86400000') -- a day
end
return 1
