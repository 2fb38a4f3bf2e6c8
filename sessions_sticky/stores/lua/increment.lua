-- Add to numbers in a HASH, and set its expiry. Atomic.
--
-- Returns the last error: fields that another program has filled with something else do not keep the others from it.
local HASH, KEPT_SECONDS = KEYS[1], ARGV[1] -- then a field and what to add to it, for each number

local failed
for at = 2, #ARGV, 2 do
  local reply = redis.pcall('HINCRBY', HASH, ARGV[at], ARGV[at + 1])
  if type(reply) == 'table' then
    failed = reply
  end
end
redis.call('EXPIRE', HASH, KEPT_SECONDS)
return failed
