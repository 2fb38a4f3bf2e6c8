-- Store a session unless there is one; an unreadable value may be replaced. See change.lua.
--
-- Returns nil when stored, else the current value.
local session, may_replace, unreadable = unpack(script_args)

local current = current_value()
if current and not (may_replace == '1' and current == unreadable) then
  return current
end
redis.call('SET', SESSION, session, 'EX', TTL)
drop_trail()
record(TTL * 1000)
return false
