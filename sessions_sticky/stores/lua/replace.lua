-- Move a session: replace the expected value, keep the idle time left. See change.lua.
--
-- A key that another program left without an expiry, or with one beyond the idle time, gets the idle time.
-- Returns {1, expected} when done, else {0, current} with current nil when the key is gone.
local expected, session = unpack(script_args)

local current = current_value()
if current ~= expected then
  return {0, current}
end
local full_ms = TTL * 1000
local left_ms = redis.call('PTTL', SESSION)
if left_ms < 0 or left_ms > full_ms then
  left_ms = full_ms
end
redis.call('SET', SESSION, session, 'PX', math.max(left_ms, 1)) -- 0 in its last millisecond
record(left_ms, true)
return {1, current}
