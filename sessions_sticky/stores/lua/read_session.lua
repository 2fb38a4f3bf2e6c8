-- The value of the session, '' for another Redis type, nil when there is none.
local function value()
  local current = redis.pcall('GET', KEYS[1])
  if type(current) == 'table' then
    return ''
  end
  return current
end
