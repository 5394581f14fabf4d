-- Shared by the scripts that draw tokens.
--
-- draw(fence, time, lag) draws the next fencing token.
--   fence    the key of the last token drawn
--   time     reply of TIME
--   lag      how far the token may be behind the server's clock, in us
--
-- Invariant: a token is greater than the one before, and hardly below the clock,
-- so that tokens rise even when the fence itself was lost. It is a number:
-- tostring would round it, and Redis takes long over numbers that it is called
-- with.

local function draw(fence, time, lag)
  local now = time[1] * 1000000 + time[2]
  local token = redis.pcall('INCR', fence)
  if type(token) ~= 'number' or token < now - lag then
    token = now
    redis.call('SET', fence, string.format('%.0f', now), 'PX', '86400000') -- a day
  end
  return token
end
