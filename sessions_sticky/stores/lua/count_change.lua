-- Count the changes that a bulk operation makes, in the step that makes them: so the number is right whatever is killed
-- when. Put between record_change.lua and the script that makes the change.
--
--   KEYS   the last: number of changes
local record_only = record

local function record(...)
  record_only(...)
  call('INCR', KEYS[#KEYS])
end
