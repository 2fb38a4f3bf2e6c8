-- Delete a session if its value is the expected one, leaving a marker that it was not lost. Atomic.
--
--   KEYS as in record_change.lua; ARGV[8]: expected value.
--
-- Returns {1, expected} when done, else {0, current} with current nil when the key is gone.
local current = value()
if current ~= ARGV[8] then
  return {0, current}
end
if KEYS[2] then
  call('SET', KEYS[2], '1', 'EX', ARGV[2])  -- refused by a full Redis, which must not keep anybody from deleting
end
redis.call('DEL', KEYS[1])
record()
return {1, current}
