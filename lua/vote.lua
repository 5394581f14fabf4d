-- Vote for a lock: the part that one node has in a quorum.
--
-- KEYS  1 lock, 2 fence, 3 rival, 4 poll
-- ARGV  1 owner value   2 ttl in ms   3 token that is proposed
--       4 how many seconds the server must have been up, 0 for any
--       5 manager id if the caller goes on to wait, and the key is not held by another
--         of the same manager; else ''
--       6 1 if it then hears of no release, and asks every so often; else ''
--       7 'foreign' if the key cannot have the owner value by the caller's own doing: it
--         is another's then, who goes by the same value; else nothing
-- Reply {1, seconds, microseconds, token, rival, poll}: yes, the key holds the
--       value, for ttl from now or longer; rival is the id of the manager that
--       was refused last, '' if there was none of late; poll is 1 if there was of
--       late one that hears of no release, else 0
--       {0, seconds, microseconds, lease, holder, poll}: no, it holds another,
--       for another `lease` ms (-1: without end)
--       {2, seconds, microseconds, uptime}: no vote, the server was started only
--       `uptime` seconds ago
--
-- Invariants: a node says yes to one value at a time. The token is above all that
-- this node has answered or confirmed before, and at most 10 s below its clock, or
-- not below it at all if the fence was lost; it is the one proposed wherever that
-- is possible, so that nodes agree. Running it again, after a reply that was lost,
-- changes nothing but token and lease.

local time = redis.call('TIME')
local values = redis.call('MGET', unpack(KEYS)) -- which takes a key of another type for none
local holder, poll = values[1], values[4] and 1 or 0
if holder and (holder ~= ARGV[1] or ARGV[7] == 'foreign') then
  if ARGV[5] ~= '' then
    redis.pcall('SET', KEYS[3], ARGV[5], 'PX', 2500)
  end
  if ARGV[6] ~= '' then
    redis.pcall('SET', KEYS[4], 1, 'PX', 1000)
  end
  return {0, time[1], time[2], redis.call('PTTL', KEYS[1]), holder, poll}
end

if ARGV[4] ~= '0' then
  local uptime = tonumber(string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)'))
  if uptime < tonumber(ARGV[4]) then
    return {2, time[1], time[2], uptime}
  end
end
if not holder then
  if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
    return redis.call('GET', KEYS[1]) -- WRONGTYPE
  end
elseif redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end

local last = values[2] and tonumber(values[2]) or 0
if not (last >= 0 and last < 9007199254740991) then -- nor if it is NaN
  last = 0
end
local token = math.max(last + 1, tonumber(ARGV[3]))
local now = time[1] * 1000000 + time[2]
if token < now - (last > 0 and 10000000 or 0) then
  token = now
end
redis.call('SET', KEYS[2], string.format('%.0f', token), 'PX', '86400000') -- a day
return {1, time[1], time[2], token, values[3] or '', poll}
