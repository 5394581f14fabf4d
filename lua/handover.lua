-- Shared by acquire.lua and release.lua, which include it after draw.lua where
-- they cannot do without.
--
-- handover(self, channel) makes the first waiter that can be told the holder.
--   KEYS     1 lock, 2 queue, 3 fence, 4 shortest, 5 skipped
--   self     id of the calling manager: its own waiters are told by the reply
--   channel  prefix of the managers' grant channels; in a cluster it has a {tag}
--            of the lock's slot, and the sharded commands know who listens
-- Returns nil when nobody can be told; nil and the error, for the script to
-- reply, when Redis does not let it look; else a table: own (the waiter is one of
-- the calling manager's), seq, value, ttl, token, and time (reply of TIME).
-- Where it is nil without an error, the third value tells whether somebody stands
-- in the queue all the same.
--
-- Whether a manager listens is asked before anything is written, once for each.
-- What PUBLISH returns would come too late: the message is out by then, and who is
-- subscribed at a replica gets it although this server has counted nobody. It also
-- counts those who listen by pattern.
--
-- Invariants: a grant message exists only if this script set the key to its value,
-- and no other script has handed the same token to anybody else. A waiter leaves
-- the queue here only to become the holder in the same step, or because one
-- behind it does and no connection listens for its manager. Its place is
-- remembered for a minute then: it may be alive, cut off for the moment, and not
-- know its place because the answer to its joining was lost. Where nobody can be
-- told, as after a failover that the managers have not noticed yet, the line stays
-- as it is.
--
-- Managers that do not listen here are sent "look key". They hear it if they are
-- subscribed at a replica of this server, and mend that.
--
-- A queue member is manager:ttl:seq:value. A grant message is
-- "token seconds microseconds seq #key key value": digits and lengths first,
-- because key and value may hold any byte.

-- listens(manager, channel) asks whether a connection does.
local function listens(manager, channel)
  local sharded = string.find(channel, '{', 1, true)
  local count = redis.pcall('PUBSUB', sharded and 'SHARDNUMSUB' or 'NUMSUB', channel .. manager)
  return count.err ~= nil or count[2] > 0 -- where it is forbidden to ask, the message has to do
end

local function publish(manager, channel, message)
  local sharded = string.find(channel, '{', 1, true)
  return redis.pcall(sharded and 'SPUBLISH' or 'PUBLISH', channel .. manager, message)
end

-- skip(members) remembers the places of those who are passed over: score and member
-- of each.
local function skip(members)
  local last = {} -- as many as are remembered
  for i = math.max(1, #members - 1999), #members do
    last[#last + 1] = members[i]
  end
  if type(redis.pcall('ZADD', KEYS[5], unpack(last))) == 'number' then
    redis.pcall('ZREMRANGEBYRANK', KEYS[5], 0, -1001)
    redis.call('PEXPIRE', KEYS[5], 60000)
  end
end

-- putBack has a member that was popped stand where it stood. If it stood alone, the queue
-- was gone for a moment and its time to live with it: that is the same as of "shortest".
local function putBack(member, score)
  redis.call('ZADD', KEYS[2], score, member)
  if redis.call('PTTL', KEYS[2]) == -1 then
    redis.call('PEXPIRE', KEYS[2], math.max(redis.call('PTTL', KEYS[4]), 60000))
  end
end

-- The first member is the next holder as a rule, so it is popped at once, and put back
-- where it cannot be told. Tables for others are made when there are any: this script is
-- most of what a handover costs.
local function handover(self, channel)
  local next, time, token
  local deaf -- managers that do not listen, as keys, and in order
  local passed -- score and member of those who cannot be told, in order
  local rank = 0
  local found, popped = redis.pcall('ZPOPMIN', KEYS[2]), true
  repeat
    if found.err and not string.find(found.err, 'WRONGTYPE', 1, true) then
      return nil, found -- a refusal is replied as Redis said it
    end
    for i = 1, #found, 2 do -- nobody can stand in what is no queue
      local manager, ttl, seq, value = string.match(found[i], '^([^:]*):(%d+):(%d+):(.*)$')
      local own = manager == self
      local hears = own
      if manager and not own and not (deaf and deaf[manager]) then
        hears = listens(manager, channel)
        if not hears then
          deaf = deaf or {}
          deaf[manager] = true
          deaf[#deaf + 1] = manager
        end
      end
      if hears then
        if not popped then
          redis.call('ZPOPMIN', KEYS[2], rank + 1)
        end
        if passed then
          skip(passed)
        end
        time = time or redis.call('TIME')
        token = token or draw(KEYS[3], time, 10000)
        redis.call('SET', KEYS[1], value, 'PX', ttl)
        -- The number that PUBLISH returns changes nothing any more. An error says
        -- that it was forbidden, and that nobody was told.
        local told = own or publish(manager, channel,
          string.format('%.0f', token) .. ' ' .. time[1] .. ' ' .. time[2] .. ' ' .. seq .. ' ' ..
          #KEYS[1] .. ' ' .. KEYS[1] .. value)
        if type(told) ~= 'table' then
          next = {own = own, seq = seq, value = value, ttl = ttl, token = token, time = time}
          break
        end
        deaf = deaf or {}
        deaf[manager] = true
        skip({found[i + 1], found[i]})
        passed, rank, popped = nil, 0, false
        break -- to look anew
      end
      if popped then
        putBack(found[i], found[i + 1])
        popped = false
      end
      if manager then
        passed = passed or {}
        passed[#passed + 1] = found[i + 1]
        passed[#passed + 1] = found[i]
      end
      rank = rank + 1
    end
    local all = next or #found == 0
    found = all or redis.pcall('ZRANGE', KEYS[2], rank, rank + 99, 'WITHSCORES')
  until all
  for i = 1, deaf and #deaf or 0 do
    publish(deaf[i], channel, 'look ' .. KEYS[1])
  end
  return next, nil, passed ~= nil
end
