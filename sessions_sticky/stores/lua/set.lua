-- Store a session, whatever was there. See change.lua.
--
-- Returns the value that was there, or nil.
local session = unpack(own)

local former = current_value()
redis.call('SET', SESSION, session, 'EX', TTL)
drop_trail()
record(TTL * 1000)
return former
