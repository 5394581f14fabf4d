-- Raise the fence to the server's clock, for claims that draw by INCRBY after it.
--
-- KEYS  1 fence
-- Reply {seconds, microseconds}: the server's clock
--
-- Invariant: tokens drawn from here on are above the clock as replied.

-- include draw.lua

local time = redis.call('TIME')
draw(KEYS[1], time, 0)
return {time[1], time[2]}
