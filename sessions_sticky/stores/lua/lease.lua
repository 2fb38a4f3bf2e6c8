-- Acquire, renew or release the lease of a bulk job. Atomic.
--
-- Returns 1 when it is (or was) the token's, 0 when another token holds it.
local lease, token, duration_ms = KEYS[1], ARGV[1], ARGV[2] -- 0 releases it

local holder = redis.pcall('GET', lease)
if holder and holder ~= token then
  return 0
end
if duration_ms == '0' then
  redis.call('DEL', lease)
else
  redis.call('SET', lease, token, 'PX', duration_ms)
end
return 1
