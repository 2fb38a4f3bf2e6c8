-- Store a session unless one is there; a value that is not a session may be replaced. See change.lua.
--
-- Returns nil when stored, else the value that is there.
local session, may_replace, unreadable = unpack(own)

local current = current_value()
if current and not (may_replace == '1' and current == unreadable) then
  return current
end
redis.call('SET', SESSION, session, 'EX', TTL)
drop_trail()
record(TTL * 1000)
return false
