-- Store a session unless one is there; a value that is no session may be replaced. Atomic.
--
--   KEYS as in record_change.lua; ARGV from 8 on: session; '1' to replace an unreadable value; that value.
--
-- Returns nil when stored, else the value that is there.
local current = value()
if current and not (ARGV[9] == '1' and current == ARGV[10]) then
  return current
end
redis.call('SET', KEYS[1], ARGV[8], 'EX', ARGV[2])
record(ARGV[2] * 1000)
return false
