-- Prolong the lease of the lock.
--
-- KEYS  1 lock
-- ARGV  1 owner value   2 ttl in ms, from now
-- Reply the time left in ms, or -2: not the holder (any more)
--
-- A replica is refused, also if the key there is not the owner's.
--
-- Invariant: a lease is never shortened, so a duplicate that arrives late, after
-- a longer extension, takes nothing away.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  -- include replica.lua
  return refusal or -2
end
local lease = redis.call('PTTL', KEYS[1])
if lease < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return tonumber(ARGV[2])
end
return lease
