-- Ask whether this server, which takes writes, hears a manager: whether a connection
-- is subscribed to the manager's grant channel here.
--
-- KEYS  1 a key that is never there, in the slot of the channel: removing it is
--       what a replica would refuse
-- ARGV  1 the grant channel   2 'NUMSUB', in a cluster 'SHARDNUMSUB'
-- Reply {number, seconds, microseconds}: how many connections, or -1 where it is
--       forbidden to ask; the server's clock
--
-- Invariant: changes nothing.

local removed = redis.pcall('DEL', KEYS[1])
if type(removed) == 'table' then
  return removed -- a refusal is replied as Redis said it
end
local time = redis.call('TIME')
local count = redis.pcall('PUBSUB', ARGV[2], ARGV[1])
return {count.err and -1 or count[2], time[1], time[2]}
