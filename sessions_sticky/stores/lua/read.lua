-- Read many sessions with their remaining idle time.
--
-- KEYS are the sessions. Returns {now, value, left_ms, value, left_ms, ...}: Unix seconds of the server's clock, then of
-- each key its value (nil when missing, "" for another Redis type) and its PTTL.
local time = redis.call('TIME')
local found = {string.format('%.3f', time[1] + time[2] / 1000000)}
for i, key in ipairs(KEYS) do
  local value = redis.pcall('GET', key)
  found[2 * i] = type(value) == 'table' and '' or value
  found[2 * i + 1] = value and redis.call('PTTL', key) or -2
end
return found
