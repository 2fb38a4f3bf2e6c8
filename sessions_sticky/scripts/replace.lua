-- Move a session: put a new value in the place of the expected one. Atomic.
--
--   EVALSHA replace 1 key expected value ttl_seconds
--
--   key          session key                      string; any other type counts as the empty value ""
--   expected     the value to replace             bytes
--   value        the value to put in its place    bytes
--   ttl_seconds  the configured idle time         whole seconds, > 0
--
-- Returns {1, expected} when done, else {0, current} with current nil when the key is gone.
-- Moving is not using: what is left of the idle time stays. Only a key that another program left without an expiry,
-- or with one beyond ttl_seconds, gets ttl_seconds, for no session outlives its idle time.
local current = redis.pcall('GET', KEYS[1])
if type(current) == 'table' then
  current = ''
end
if current ~= ARGV[1] then
  return {0, current}
end
local full = tonumber(ARGV[3]) * 1000
local left = redis.call('PTTL', KEYS[1])
if left < 1 or left > full then
  left = full
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', left)
return {1, current}
