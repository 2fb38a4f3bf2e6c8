-- Take, keep or give back the lease of a bulk operation. Atomic.
--
--   EVALSHA lease 1 key token milliseconds     milliseconds: how long it is to last; 0 gives it back
--
-- Returns 1 when it is the token's (or was), 0 when somebody else has it.
local holder = redis.pcall('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
