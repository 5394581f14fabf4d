-- Shared by the scripts that tell an owner that the key is not his, without having
-- written anything.
--
-- refusal is what Redis answers if this server is a replica, for the script to reply,
-- else nil. What a replica has may be old, or of a history that was lost.

local refusal = redis.pcall('ZREM', KEYS[1], '') -- changes nothing, whatever the key is
if type(refusal) ~= 'table' or not string.find(refusal.err, 'READONLY', 1, true) then
  refusal = nil
end
