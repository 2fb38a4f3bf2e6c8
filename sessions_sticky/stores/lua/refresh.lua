-- Update the index entries of a session, unless it has changed since it was read. See change.lua.
--
-- Returns 1 when the session was not in its route's ZSET, else 0.
local left_ms, expected, mode = unpack(script_args)
-- left_ms    idle time left, '' when the session is gone
-- expected   value that was read, '' for any
-- mode       '' sets the entries; 'missing' only adds missing ones; 'keep' leaves them where they are

local current = current_value()
if expected ~= '' and current ~= expected then
  if not current then
    record() -- the process that deleted it did not know its former places
  end
  return 0
end
local of_owner, of_route = redis.pcall('ZSCORE', OWNER, ID), redis.pcall('ZSCORE', ROUTE, ID)
if not (of_owner and of_route and mode == 'missing') then
  record(tonumber(left_ms), mode == 'keep')
end
return of_route and 0 or 1
