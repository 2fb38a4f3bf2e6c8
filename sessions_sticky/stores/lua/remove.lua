-- Delete a session if its value is the expected one, and mark it as deleted. See change.lua.
--
-- Returns {1, expected} when done, else {0, current} with current nil when the key is gone.
local expected = unpack(own)

local current = current_value()
if current ~= expected then
  return {0, current}
end
if MARKER then
  call('SET', MARKER, '1', 'EX', TTL) -- a full Redis refuses it, which must not prevent the deletion
end
redis.call('DEL', SESSION)
drop_trail()
record()
return {1, current}
