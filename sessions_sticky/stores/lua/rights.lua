-- Check what this user may do, without doing it.
-- KEYS none; ARGV: commands as JSON lists. Returns the numbers of those that are denied, from 1.
local denied = {}
for number, command in ipairs(ARGV) do
  if not redis.acl_check_cmd(unpack(cjson.decode(command))) then
    denied[#denied + 1] = number
  end
end
return denied
