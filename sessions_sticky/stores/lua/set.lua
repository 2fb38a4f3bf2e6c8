-- Store a session, replacing any value. See change.lua.
--
-- Returns the former value, or nil.
local session = unpack(script_args)

local former = current_value()
redis.call('SET', SESSION, session, 'EX', TTL)
drop_trail()
record(TTL * 1000)
return former
