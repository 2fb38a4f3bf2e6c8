-- Move a session: put a new value in the place of the expected one. Atomic.
--
--   KEYS as in record_change.lua; ARGV from 8 on: expected value; new value.
--
-- Returns {1, expected} when done, else {0, current} with current nil when the key is gone.
-- Moving is not using: what is left of the idle time stays. Only a key that another program left without an expiry,
-- or with one beyond the idle time, gets the idle time, for no session outlives it.
local current = value()
if current ~= ARGV[8] then
  return {0, current}
end
local full = ARGV[2] * 1000
local left = redis.call('PTTL', KEYS[1])
if left < 1 or left > full then
  left = full
end
redis.call('SET', KEYS[1], ARGV[9], 'PX', left)
record(left, true)
return {1, current}
