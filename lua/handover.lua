-- Shared by acquire.lua and release.lua, which include it after draw.lua where
-- they cannot do without.
--
-- handover(self, channel) makes the first live waiter the holder.
--   KEYS     1 lock, 2 queue, 3 fence, 5 skipped
--   self     id of the calling manager: its own waiters are told by the reply
--   channel  prefix of the managers' grant channels; in a cluster it has a {tag}
--            of the lock's slot, and PUBLISH would not know who listens
-- Returns nil when nobody alive waits; nil and the error, for the script to
-- reply, when Redis does not let it look; else a table: own (the waiter is one of
-- the calling manager's), seq, value, ttl, token, and time (reply of TIME).
--
-- Invariant: a waiter leaves the queue here only to become the holder in the
-- same step, or because no connection listens for its manager any more. Its
-- place is remembered for a minute then: it may be alive, cut off for the
-- moment, and not know its place because the answer to its joining was lost.
--
-- A queue member is manager:ttl:seq:value. A grant message is
-- "token seconds microseconds seq #key key value": digits and lengths first,
-- because key and value may hold any byte.

local function handover(self, channel)
  local time, token
  while true do
    local popped = redis.pcall('ZPOPMIN', KEYS[2])
    if popped.err and not string.find(popped.err, 'WRONGTYPE', 1, true) then
      return nil, popped -- raised, it would not begin with READONLY any more
    end
    local member = popped[1]
    if not member then
      return nil -- nor can anybody stand in what is no queue
    end
    local manager, ttl, seq, value = string.match(member, '^([^:]*):(%d+):(%d+):(.*)$')
    if manager then
      time = time or redis.call('TIME')
      token = token or draw(KEYS[3], time, 10000)
      local own = manager == self
      -- Where it is forbidden nobody can be told: an error is no receiver.
      local publish = string.find(channel, '{', 1, true) and 'SPUBLISH' or 'PUBLISH'
      local receivers = own and 1 or redis.pcall(publish, channel .. manager,
        string.format('%.0f', token) .. ' ' .. time[1] .. ' ' .. time[2] .. ' ' .. seq .. ' ' ..
        #KEYS[1] .. ' ' .. KEYS[1] .. value)
      if type(receivers) == 'number' and receivers > 0 then
        redis.call('SET', KEYS[1], value, 'PX', ttl)
        return {own = own, seq = seq, value = value, ttl = ttl, token = token, time = time}
      end
      if type(redis.pcall('ZADD', KEYS[5], popped[2], member)) == 'number' then
        redis.pcall('ZREMRANGEBYRANK', KEYS[5], 0, -1001)
        redis.call('PEXPIRE', KEYS[5], 60000)
      end
    end
  end
end
