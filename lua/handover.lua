-- Shared by acquire.lua and release.lua, which include it after draw.lua where
-- they cannot do without.
--
-- handover(self, channel) makes the first waiter that can be told the holder.
--   KEYS     1 lock, 2 queue, 3 fence, 5 skipped
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

local function handover(self, channel)
  local sharded = string.find(channel, '{', 1, true)
  local publish = sharded and 'SPUBLISH' or 'PUBLISH'
  local heard, unheard = {[self] = true}, {}
  local passed = {} -- score and member of those who cannot be told, in order

  local function hears(manager)
    if heard[manager] == nil then
      local count = redis.pcall('PUBSUB', sharded and 'SHARDNUMSUB' or 'NUMSUB', channel .. manager)
      -- Where it is forbidden to ask, the message has to do.
      heard[manager] = count.err ~= nil or count[2] > 0
      if not heard[manager] then
        unheard[#unheard + 1] = manager
      end
    end
    return heard[manager]
  end

  local function finish(next)
    for _, manager in ipairs(unheard) do
      redis.pcall(publish, channel .. manager, 'look ' .. KEYS[1])
    end
    return next, nil, #passed > 0
  end

  local function skip(members, to)
    local last = {} -- as many as are remembered
    for i = math.max(1, to - 1999), to do
      last[#last + 1] = members[i]
    end
    if #last > 0 and type(redis.pcall('ZADD', KEYS[5], unpack(last))) == 'number' then
      redis.pcall('ZREMRANGEBYRANK', KEYS[5], 0, -1001)
      redis.call('PEXPIRE', KEYS[5], 60000)
    end
  end

  local time, token
  local rank, size = 0, 1
  while true do
    local found = redis.pcall('ZRANGE', KEYS[2], rank, rank + size - 1, 'WITHSCORES')
    if found.err and not string.find(found.err, 'WRONGTYPE', 1, true) then
      return nil, found
    end
    if found.err or #found == 0 then
      return finish(nil) -- nor can anybody stand in what is no queue
    end
    size = 100
    for i = 1, #found, 2 do
      local manager, ttl, seq, value = string.match(found[i], '^([^:]*):(%d+):(%d+):(.*)$')
      if manager and hears(manager) then
        local popped = redis.pcall('ZPOPMIN', KEYS[2], rank + 1)
        if popped.err then
          return nil, popped -- a refusal is replied as Redis said it
        end
        skip(passed, #passed)
        time = time or redis.call('TIME')
        token = token or draw(KEYS[3], time, 10000)
        redis.call('SET', KEYS[1], value, 'PX', ttl)
        local own = manager == self
        -- The number that PUBLISH returns changes nothing any more. An error says
        -- that it was forbidden, and that nobody was told.
        local told = own or redis.pcall(publish, channel .. manager,
          string.format('%.0f', token) .. ' ' .. time[1] .. ' ' .. time[2] .. ' ' .. seq .. ' ' ..
          #KEYS[1] .. ' ' .. KEYS[1] .. value)
        if type(told) ~= 'table' then
          return finish({own = own, seq = seq, value = value, ttl = ttl, token = token, time = time})
        end
        heard[manager] = false
        skip({found[i + 1], found[i]}, 2)
        passed, rank, size = {}, 0, 1
        break
      end
      if manager then
        passed[#passed + 1] = found[i + 1]
        passed[#passed + 1] = found[i]
      end
      rank = rank + 1
    end
  end
end
