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

-- A time as a score, whole seconds: with fractions a fifth of the time of a change went into writing and reading scores.
local function score_at(time)
  return string.format('%d', time)
end

local function seconds()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1000000
end
