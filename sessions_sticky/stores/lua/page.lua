-- Read the next entries of the union of some of the index's ZSETs, latest expiry first.
--
-- KEYS are the ZSETs. Returns {[number of the ZSET, member, score, ...], 1 if there are more else 0}.
local limit, score, member = tonumber(ARGV[1]), ARGV[2], ARGV[3] -- score and member of the last entry read; '' begins
local chunk = math.max(10, math.ceil(limit / #KEYS))

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

-- Rank of the first entry after the last one read. Many entries share a score.
local function start(key)
  if score == '' then
    return 0
  end
  local low = redis.call('ZCOUNT', key, '(' .. score, '+inf')
  local high = low + redis.call('ZCOUNT', key, score, score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if below(redis.call('ZREVRANGE', key, middle, middle)[1], member) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

local function advance(source)
  source.at = source.at + 2
  if not source.buffer[source.at] then
    source.buffer = redis.call('ZREVRANGE', source.key, source.rank, source.rank + chunk - 1, 'WITHSCORES')
    source.rank, source.at = source.rank + chunk, 1
  end
  source.member, source.score = source.buffer[source.at], source.buffer[source.at + 1]
end

local function is_later(a, b)
  local x, y = tonumber(a.score), tonumber(b.score)
  return x > y or x == y and below(b.member, a.member)
end

local sources = {}
for i, key in ipairs(KEYS) do
  if redis.call('TYPE', key).ok == 'zset' then
    local source = {number = i, key = key, rank = start(key), at = -1, buffer = {}}
    advance(source)
    table.insert(sources, source)
  end
end

local entries = {}
while true do
  local latest
  for _, source in ipairs(sources) do
    if source.member and (not latest or is_later(source, latest)) then
      latest = source
    end
  end
  if not latest or #entries >= 3 * limit then
    return {entries, latest and 1 or 0}
  end
  for _, value in ipairs({latest.number, latest.member, latest.score}) do
    table.insert(entries, value)
  end
  advance(latest)
end
