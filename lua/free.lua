-- Release a lock that nobody is known to wait for: what release.lua does, where it
-- is as simple as that.
--
-- KEYS  1 lock, 2 queue
-- ARGV  1 owner value
-- Reply 1: released and free
--       -1: nothing was done, it is for release.lua
--
-- Invariant: only the owner's own value is removed, and only if nobody stands in
-- the queue.

if redis.pcall('GET', KEYS[1]) ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 1 then
  return -1
end
return redis.pcall('DEL', KEYS[1]) -- raised, READONLY would not begin the error any more
