-- Add a turn to the trail of a session, if the session exists. Atomic.
--
-- A trail is a LIST: a header, then the last turns, oldest first. The header's lines: sums; the prompt caches
-- ("name:expires_at:tokens ...", the one of the last answer first) and the spill-overs
-- ("name-bound-first-last-turns-reason ...", oldest first); then the names that the turns refer to by number.
-- Returns {expected, lost}: tokens that were expected from the cache, and lost by a move; nil when there is no session.
local TRAIL, SESSION = KEYS[1], KEYS[2]                  -- without SESSION, TTL_MS is what it has left
local TTL_MS = tonumber(ARGV[1])
local LINES = {} -- as one argument: a client takes as long for each of them as this script for a line
for line in (ARGV[2] .. '\n'):gmatch('(.-)\n') do
  table.insert(LINES, line)
end
local LENGTH, AT = tonumber(LINES[1]), tonumber(LINES[2])
local EXPIRES_AT = LINES[3]                                -- Unix seconds; '' for a turn that left nothing in a cache
local READ, WARM = tonumber(LINES[4]), tonumber(LINES[5])  -- tokens read, and left in the cache; nil when not known
local DISCOUNT, SUMS = tonumber(LINES[6]), LINES[7]        -- money that a token read saves; to add to the first sums
local TURN, NAMES = LINES[8], {unpack(LINES, 9)}           -- $1 in TURN is the first of NAMES, which is the provider
local MAX_NAMES, MAX_SPILL_OVERS = 60, 5
local MAX_NUMBER = 60466175 -- five digits of base 36
local MAX_DIGITS = 15 -- of numbers in the header: a double holds them exactly
local ROUTE = '^[^ ]* [^ ]* [^ ]* ([^ ]*) ([^ ]*) [^ ]* ([^ ]*) [^ ]* ([^ ]*)' -- provider, bound, outcome, reason
local DIGITS = '0123456789abcdefghijklmnopqrstuvwxyz'

local function base36(number)
  local text = ''
  number = math.min(number, MAX_NUMBER)
  repeat
    local digit = number % 36
    text = DIGITS:sub(digit + 1, digit + 1) .. text
    number = (number - digit) / 36
  until number == 0
  return text
end

local left_ms = SESSION and redis.call('PTTL', SESSION) or TTL_MS
if left_ms == -2 then
  return false
end
if left_ms == -1 then -- written by another program
  left_ms = TTL_MS
end

local header = redis.pcall('LPOP', TRAIL)
if type(header) == 'table' then -- a key of another type
  redis.call('DEL', TRAIL)
end
local lines = {}
for line in ((type(header) == 'string' and header or '') .. '\n'):gmatch('(.-)\n') do
  table.insert(lines, line)
end
lines[2] = lines[2] or ''

local function number_of(name)
  for i = 3, #lines do
    if lines[i] == name then
      return base36(i - 3)
    end
  end
  if #lines - 2 == MAX_NAMES then
    return ''
  end
  table.insert(lines, name)
  return base36(#lines - 3)
end

local caches, last = {}, nil
for name, expires_at, tokens in lines[2]:gmatch('(%w+):(%d+):(%d+)') do
  if math.max(#expires_at, #tokens) <= MAX_DIGITS then
    caches[name] = {tonumber(expires_at), tonumber(tokens)}
    last = last or name
  end
end
local provider = number_of(NAMES[1])
local own, former = caches[provider], last ~= provider and caches[last]
local expected, lost = 0, 0
if READ and own and AT < own[1] then
  expected = own[2]
end
if READ and former and AT < former[1] then
  lost = math.max(0, former[2] - READ)
end
if EXPIRES_AT ~= '' then
  last = provider
  caches[provider] = {EXPIRES_AT, WARM or own and own[2] or 0}
end
local kept = {}
for name, cache in pairs(caches) do
  local entry = string.format('%s:%d:%d', name, cache[1], cache[2])
  table.insert(kept, name == last and 1 or #kept + 1, entry)
end

local turn = TURN:gsub('%$(%d+)', function(at)
  return number_of(NAMES[tonumber(at)])
end)
local spills = {}
for first, last, turns, reason in lines[2]:gmatch('(%w*%-%w*%-%d+)%-(%d+)%-(%d+)%-(%w*)') do
  table.insert(spills, {first, last, turns, reason})
end
if NAMES[4] == 'spilled' then
  local provider, bound, outcome, reason = turn:match(ROUTE)
  local last_provider, last_bound, last_outcome = (redis.call('LRANGE', TRAIL, -1, -1)[1] or ''):match(ROUTE)
  local spill = spills[#spills]
  if spill and last_provider == provider and last_bound == bound and last_outcome == outcome then
    spill[2], spill[3] = AT, math.min(tonumber(spill[3]) + 1, MAX_NUMBER)
  else
    table.insert(spills, {string.format('%s-%s-%d', provider, bound, AT), AT, 1, reason})
  end
end
for i = math.max(1, #spills - MAX_SPILL_OVERS + 1), #spills do
  table.insert(kept, table.concat(spills[i], '-'))
end

local sums, added = {}, {}
for number in lines[1]:gmatch('%-?%d+') do
  table.insert(sums, #number <= MAX_DIGITS and tonumber(number) or 0)
end
for number in SUMS:gmatch('%-?%d+') do
  table.insert(added, tonumber(number))
end
for _, number in ipairs({expected, lost, math.floor(lost * DISCOUNT + 0.5)}) do
  table.insert(added, number)
end
for i, number in ipairs(added) do
  added[i] = string.format('%d', (sums[i] or 0) + number)
end

lines[1], lines[2] = table.concat(added, ' '), table.concat(kept, ' ')
redis.call('RPUSH', TRAIL, turn .. ' ' .. base36(expected) .. ' ' .. base36(lost))
redis.call('LTRIM', TRAIL, -LENGTH, -1)
redis.call('LPUSH', TRAIL, table.concat(lines, '\n'))
redis.call('PEXPIRE', TRAIL, string.format('%d', left_ms))
return {expected, lost}
