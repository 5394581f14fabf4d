-- Release locks that nobody is known to wait for: what release.lua does, where it
-- is as simple as that, for as many as there are.
--
-- KEYS  1 to n the locks, n+1 to 2n their queues
-- ARGV  1 to n the owner values
-- Reply a number: all are released and free
--       else the numbers of those for which nothing was done: they are for release.lua
--
-- Invariant: of each lock only the owner's own value is removed, and only if nobody
-- stands in the queue.

local n = #ARGV
if n == 1 then -- which takes a third more the other way
  if redis.pcall('GET', KEYS[1]) ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 1 then
    return {1}
  end
  return redis.pcall('DEL', KEYS[1]) -- a refusal is replied as Redis said it
end
local values = redis.call('MGET', unpack(KEYS, 1, n)) -- false for what is no string
local queues = redis.call('EXISTS', unpack(KEYS, n + 1))
local free, left = {}, {}
for i = 1, n do
  if values[i] == ARGV[i] and (queues == 0 or redis.call('EXISTS', KEYS[n + i]) == 0) then
    free[#free + 1] = KEYS[i]
  else
    left[#left + 1] = i
  end
end
local removed = 0
if #free > 0 then
  removed = redis.pcall('DEL', unpack(free))
end
if #left == 0 or type(removed) == 'table' then
  return removed
end
return left
