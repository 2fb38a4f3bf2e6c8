-- Delete a session if its value is the expected one, and mark it as deleted. See change.lua and mark.lua.
--
-- Returns {1, expected} when done, else {0, current} with current nil when the key is gone.
local expected, created_at = unpack(script_args) -- created_at of the binding, or the time where it is unreadable

local current = current_value()
if current ~= expected then
  return {0, current}
end
if MARKER then
  mark_deleted(MARKER, created_at, TTL) -- a full Redis refuses it, which must not prevent the deletion
end
redis.call('DEL', SESSION)
drop_trail()
record()
return {1, current}
