-- Whether member a sorts before member b: by bytes, as Redis does. Lua's own `<` follows the server's locale.
local function below(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = a:byte(i), b:byte(i)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

local function seconds()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1000000
end
