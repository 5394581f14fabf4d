-- Shared by the scripts that draw tokens, which it is put in front of.
--
-- draw(fence, time) draws the next fencing token, as a string.
--   fence    the key of the last token drawn
--   time     reply of TIME
--
-- Invariant: a token is greater than the one before, and never below the
-- server's clock in microseconds, so that tokens rise even when the fence itself
-- was lost. Numbers are formatted here: tostring would round them.

local function draw(fence, time)
  local token = math.max(time[1] * 1000000 + time[2], (tonumber(redis.call('GET', fence)) or 0) + 1)
  token = string.format('%.0f', token)
  redis.call('SET', fence, token, 'PX', 86400000) -- fenceTTL
  return token
end
