-- Acquire the lock, or join its line, or look after a place in it.
--
-- KEYS  1 lock, 2 queue, 3 fence, 4 shortest, 5 skipped
-- ARGV  1 owner value   2 ttl in ms        3 'join' to wait, 'try' not to
--       4 manager id    5 channel prefix   6 seq of the waiter
--       7 score of an earlier join, '' if there was none, '?' if it was not answered
--       8 'foreign' if the key cannot have the owner value by the caller's own doing:
--         it is another's then, who goes by the same value; else nothing
-- Reply {1, seconds, microseconds, token, lease, alone}: held; lease is the time
--       left in ms (-1: none set); alone is 1 if nobody stood in the line, not
--       even the caller.
--       {2, seconds, microseconds}: joined, straight behind another waiter of
--       this manager with the same ttl, who has seen to all else. The time is the
--       place in the line, in microseconds.
--       {0, seconds, microseconds, lease, holder, next, score, added, shortest}:
--       taken by the owner value `holder`; `next` is the seq of this manager's
--       waiter if it became the holder just now, else ''. Of 'join' only:
--       `score` is the place in the line, `added` is 1 if it had to be
--       (re)created, `shortest` is the shortest ttl in ms among those who have
--       joined this line.
--
-- Invariants: the lock never goes to a newcomer while a live waiter stands in
-- the queue. Running it again, after a reply that was lost or a restart,
-- changes nothing but the token: an owner finds its own value, a waiter its
-- own member.

-- include draw.lua

local time = redis.call('TIME')
local holder = redis.call('GET', KEYS[1])
local kin = ARGV[4] .. ':' .. ARGV[2] .. ':'
local member = kin .. ARGV[6] .. ':' .. ARGV[1]

if holder == ARGV[1] and ARGV[8] ~= 'foreign' then
  redis.call('ZREM', KEYS[2], member)
  return {1, time[1], time[2], draw(KEYS[3], time, 10000), redis.call('PTTL', KEYS[1]), 0}
end

if not holder and redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return {1, time[1], time[2], draw(KEYS[3], time, 10000), tonumber(ARGV[2]), 1}
end

local join = ARGV[3] == 'join'
local score, added, newcomer = ARGV[7], 0, false
if join then
  if score == '?' then
    local known = redis.pcall('ZSCORE', KEYS[5], member)
    score = type(known) == 'string' and known or ''
  end
  if score == '' then
    score = time[1] .. string.format('%06d', time[2])
    newcomer = true
  end
  added = redis.call('ZADD', KEYS[2], 'NX', score, member)
  if added == 0 then
    local place = tonumber(redis.call('ZSCORE', KEYS[2], member))
    if newcomer or place <= tonumber(score) then
      score = place
    else -- a request that came late has put it behind its own place
      redis.call('ZADD', KEYS[2], score, member)
    end
  elseif newcomer then
    local last = redis.call('ZRANGE', KEYS[2], '-2', '-1')
    if last[#last] ~= member then
      -- The clock orders the line; the last place wins over a clock set back.
      score = redis.call('ZRANGE', KEYS[2], '-1', '-1', 'WITHSCORES')[2] + 1
      redis.call('ZADD', KEYS[2], score, member)
    elseif holder and ARGV[7] == '' and #last == 2 and string.sub(last[1], 1, #kin) == kin then
      return {2, time[1], time[2]}
    end
  end
end

local turn = ''
if not holder then
  -- include handover.lua

  -- Expired, deleted or evicted under waiters: the first of them is next.
  local next, failure = handover(ARGV[4], ARGV[5])
  if failure then
    return failure
  end
  if not next then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return {1, time[1], time[2], draw(KEYS[3], time, 10000), tonumber(ARGV[2]), 1}
  end
  if next.own and next.seq == ARGV[6] then
    return {1, time[1], time[2], next.token, tonumber(next.ttl), 0}
  end
  holder = next.value
  if next.own then
    turn = next.seq
  end
end

local lease = redis.call('PTTL', KEYS[1])
if not join then
  return {0, time[1], time[2], lease, holder, turn}
end

-- Waiters look after the line once a lease at least, so this outlives it; when
-- they are all gone the line goes too.
local keep = math.min(math.max(lease, 0), 4e12) + 60000
local shortest = redis.call('GET', KEYS[4])
local shorter = not shortest or tonumber(ARGV[2]) < tonumber(shortest)
if shorter then
  shortest = ARGV[2]
end
if shorter or redis.call('PTTL', KEYS[2]) < keep - 20000 then
  redis.call('SET', KEYS[4], shortest, 'PX', keep)
  redis.call('PEXPIRE', KEYS[2], keep)
end
return {0, time[1], time[2], lease, holder, turn, score, added, shortest}
