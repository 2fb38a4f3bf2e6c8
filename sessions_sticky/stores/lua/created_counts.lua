-- Add up how many sessions were created on each route.
--
--   EVALSHA created_counts n hash... hours        the last `hours` HASHes are of hours, those before of minutes
--
-- Returns {[route, number, ...], [route, number, ...]}: in those minutes, in those hours.
local function add_up(first, last)
  local sums, flat = {}, {}
  for i = first, last do
    local counted = redis.pcall('HGETALL', KEYS[i])
    for j = 1, #counted, 2 do
      sums[counted[j]] = (sums[counted[j]] or 0) + (tonumber(counted[j + 1]) or 0)
    end
  end
  for route, number in pairs(sums) do
    table.insert(flat, route)
    table.insert(flat, number)
  end
  return flat
end

local minutes = #KEYS - ARGV[1]
return {add_up(1, minutes), add_up(minutes + 1, #KEYS)}
