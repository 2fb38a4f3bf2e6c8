-- Take the next entries of the index, latest expiry first, from the union of some of its ZSETs.
--
--   KEYS   1 walks, HASH token -> "lease_end score member"     2 routes, ZSET
--          3... the ZSETs to take from, then those to be in
--   ARGV   1 limit     2 most entries to look at     3, 4 score and member of the last entry taken before, '' for none
--          5 number of ZSETs to take from; an entry must be in one of the others, if there are any
--          6 token of the walk, '' for none          7 its lease in seconds
--          8 number of routes when the ZSETs were chosen, '' when they do not depend on it
--
-- Returns {[zset, member, score, ...], score, member, more, missed}: `zset` counts from 1; score and member of the last
-- entry looked at; whether there are more; how many have moved up past the walk. The walk's position is noted in the
-- same step, for record_change.lua to tell which entries it has yet to come by. Returns nil when routes have come or gone: a
-- session may have moved to one that is not among the ZSETs.
local MAX_WALKS = 32
local limit, budget, taking = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[5])
local chunk = math.max(10, math.ceil(limit / taking))
local score, member = ARGV[3], ARGV[4]
local missed_key, met_key = KEYS[1] .. ':' .. ARGV[6] .. ':missed', KEYS[1] .. ':' .. ARGV[6] .. ':met'

if ARGV[8] ~= '' and redis.pcall('ZCARD', KEYS[2]) ~= tonumber(ARGV[8]) then
  return false
end

-- Rank of the first entry below the position.
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
  source.member, source.text = source.buffer[source.at], source.buffer[source.at + 1]
  source.score = source.text and tonumber(source.text)
end

local sources = {}
for i = 3, taking + 2 do
  if redis.call('TYPE', KEYS[i]).ok == 'zset' then
    local source = {number = i - 2, key = KEYS[i], rank = start(KEYS[i]), at = -1, buffer = {}}
    advance(source)
    table.insert(sources, source)
  end
end

-- The source whose entry is next.
local function latest()
  local best
  for _, source in ipairs(sources) do
    if
      source.member
      and (
        not best
        or source.score > best.score
        or source.score == best.score and below(best.member, source.member)
      )
    then
      best = source
    end
  end
  return best
end

local some_met = ARGV[6] ~= '' and redis.call('EXISTS', met_key) == 1

local function wanted(id)
  if some_met and redis.pcall('SISMEMBER', met_key, id) == 1 then
    return false
  end
  for i = taking + 3, #KEYS do
    if redis.pcall('ZSCORE', KEYS[i], id) then
      return true
    end
  end
  return #KEYS == taking + 2
end

local taken, looked_at = {}, 0
local source = latest()

-- A stale entry may stand beside the true one of the same session: the position is past both, or it is past neither.
local function is_beside_the_last()
  return looked_at > 0 and source.member == member and source.text == score
end

while source and (#taken < 3 * limit and looked_at < budget or is_beside_the_last()) do
  if wanted(source.member) then
    table.insert(taken, source.number)
    table.insert(taken, source.member)
    table.insert(taken, source.text)
  end
  score, member, looked_at = source.text, source.member, looked_at + 1
  advance(source)
  source = latest()
end

local call = redis.pcall  -- pages come without a walk, too
local missed = 0
if ARGV[6] ~= '' then
  missed = call('LLEN', missed_key)
  missed = type(missed) == 'number' and missed or 0
  if source then
    local lease_end = string.format('%.3f', seconds() + ARGV[7])
    call('HSET', KEYS[1], ARGV[6], lease_end .. ' ' .. score .. ' ' .. member)
    call('EXPIRE', KEYS[1], ARGV[7])
    call('EXPIRE', missed_key, ARGV[7])
    call('EXPIRE', met_key, ARGV[7])
    local number = call('HLEN', KEYS[1])
    if type(number) == 'number' and number > MAX_WALKS then
      local oldest, oldest_end
      local walks = call('HGETALL', KEYS[1])
      for i = 1, #walks, 2 do
        local its_end = tonumber((walks[i + 1]:match('^%S+'))) or 0
        if not oldest or its_end < oldest_end then
          oldest, oldest_end = walks[i], its_end
        end
      end
      call('HDEL', KEYS[1], oldest)
    end
  else
    call('HDEL', KEYS[1], ARGV[6])
  end
end
return {taken, score, member, source and 1 or 0, missed}
