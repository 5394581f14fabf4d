-- Release the lock to the next in line, or leave the line.
--
-- KEYS  1 lock, 2 queue, 3 fence, 4 shortest, 5 skipped
-- ARGV  1 owner value   2 manager id   3 channel prefix
--       4 queue member of a waiter that may stand in the line, or ''
--       5 'foreign' if the key cannot have the owner value by the caller's own doing, as
--         far as he knows: it is left alone; else nothing
-- Reply 0: not the holder (any more); the waiter has left the line
--       1: released and free
--       2: released and handed to a waiter of another manager
--       4: foreign, and the key has the owner value: the waiter has left the line
--       {3, seconds, microseconds, seq, token, value}: released and handed to
--       this manager's waiter `seq`, whose owner value is `value`
--
-- Invariants: only the owner's own value is ever removed. While a waiter that can
-- be told stands in the queue the lock key is never absent. Running it again is
-- harmless.

if ARGV[4] ~= '' and redis.call('ZREM', KEYS[2], ARGV[4]) == 1 and
    redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[4])
end
local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'table' and not string.find(holder.err, 'WRONGTYPE', 1, true) then
  return holder
end
if holder ~= ARGV[1] then
  -- include replica.lua
  return refusal or 0
end
if ARGV[5] == 'foreign' then
  return 4
end

-- include draw.lua
-- include handover.lua

local next, failure, stays = handover(ARGV[2], ARGV[3])
if failure then
  return failure
end
if not next then
  if stays then
    redis.call('DEL', KEYS[1])
  else
    redis.call('DEL', KEYS[1], KEYS[4])
  end
  return 1
end
if next.own then
  return {3, next.time[1], next.time[2], next.seq, next.token, next.value}
end
return 2
