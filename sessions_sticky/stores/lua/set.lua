-- Store a session, whatever was there. Atomic.
--
--   KEYS as in record_change.lua; ARGV[8]: session.
--
-- Returns the value that was there, or nil.
local former = value()
redis.call('SET', KEYS[1], ARGV[8], 'EX', ARGV[2])
record(ARGV[2] * 1000)
return former
