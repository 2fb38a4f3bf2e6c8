-- Store a session where an unreadable value stands in its way, unless another process was first. Atomic.
--
--   EVALSHA heal 1 key unreadable value ttl_seconds
--
--   key          session key                      string; any other type counts as the empty value ""
--   unreadable   the value that is no session     bytes
--   value        the session                      bytes
--   ttl_seconds  the configured idle time         whole seconds, > 0
--
-- Returns nil when stored, else the value that stands there now.
local current = redis.pcall('GET', KEYS[1])
if type(current) == 'table' then
  current = ''
end
if current and current ~= ARGV[1] then
  return current
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return false
