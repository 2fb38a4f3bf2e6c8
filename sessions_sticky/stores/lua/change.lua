-- The part shared by all changes of a session, prepended to bind, set, replace, remove and refresh. These call `record`
-- after their change, so that the session, its index entries, its history and the counters change in one atomic step.
--
-- A score of the index is the session's expiry in whole Unix seconds of the server's clock. It may lag behind the session
-- by LAG seconds: only an entry that is overdue by more is certainly dead.
local SESSION, MARKER, TRAIL = KEYS[1], KEYS[2], KEYS[3] -- MARKER: deleted, not lost; TRAIL: last turns
local ALL, ROUTES, HISTORY = KEYS[4], KEYS[5], KEYS[6]   -- ZSET of sessions, ZSET of route names, STREAM
local OWNER, ROUTE = KEYS[7], KEYS[8]                    -- ZSETs of the owner's and the route's sessions
local FORMER_OWNER, FORMER_ROUTE = KEYS[9], KEYS[10]     -- the same before the change
local COUNTER, HOUR_COUNTER = KEYS[11], KEYS[12]         -- see COUNTS
local CONVERSATION_HISTORY = KEYS[13]                    -- LIST
local ID, TTL, LAG = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]) -- idle time in seconds; LAG '' keeps no index
local HISTORY_LENGTH, EVENT = ARGV[4], ARGV[5]         -- entries of HISTORY, '0' adds none; JSON, '' adds none
local ROUTE_NAME = ARGV[6]                             -- member of ROUTES
local COUNTS = ARGV[7] -- 'created': HASHes route name -> number, of a minute and an hour; 'done': a number in COUNTER
local MAX_EVENTS = tonumber(ARGV[8])                   -- entries of CONVERSATION_HISTORY, 0 adds none
local script_args = {unpack(ARGV, 9)}                   -- the script's own arguments

local MAX_TRIMMED = 100
local HISTORY_LAG_MS = 120000 -- CONVERSATION_HISTORY is extended with the index entries, at least this often while it is used
local MINUTE_KEPT, HOUR_KEPT = 2 * 3600, 26 * 3600

-- For the index, once the session is changed: a key of a wrong type there must not fail the change.
local call = redis.pcall

-- The session's value, '' for a key of another type, false without a key.
local function current_value()
  local value = redis.pcall('GET', SESSION)
  return type(value) == 'table' and '' or value
end

-- A trail belongs to one binding: it is deleted with it.
local function drop_trail()
  if TRAIL then
    call('DEL', TRAIL)
  end
end

-- Trims a few dead entries with each new one. Extends the key's expiry at most LAG ahead: a key outlives its last session
-- by little, and most calls need not set it. Without `now` nothing is trimmed.
local function enter(key, score, member, left_ms, now)
  if call('ZADD', key, score, member) == 1 and now then
    local dead = call('ZRANGEBYSCORE', key, '-inf', string.format('%d', now - LAG), 'LIMIT', 0, MAX_TRIMMED)
    if #dead > 0 then
      call('ZREM', key, unpack(dead))
    end
  end
  local kept_ms = left_ms + LAG * 1000
  local ttl = call('PTTL', key)
  if type(ttl) == 'number' and ttl < kept_ms then
    call('PEXPIRE', key, string.format('%d', kept_ms + math.min(left_ms / 2, LAG * 1000)))
  end
end

-- A route's name expires with the last of its sessions.
local function enter_route(score, left_ms, now)
  local known = call('ZSCORE', ROUTES, ROUTE_NAME)
  if type(known) ~= 'string' or tonumber(known) < tonumber(score) then
    enter(ROUTES, score, ROUTE_NAME, left_ms, now)
  end
end

-- `left_ms` is the idle time left, nil when the session is gone; `keep_score` leaves its entries where they are.
local function record(left_ms, keep_score)
  if EVENT ~= '' and HISTORY_LENGTH ~= '0' then
    call('XADD', HISTORY, 'MAXLEN', '=', HISTORY_LENGTH, '*', 'id', ID, 'event', EVENT)
  end
  if EVENT ~= '' and MAX_EVENTS > 0 then
    local time = redis.call('TIME')
    call('RPUSH', CONVERSATION_HISTORY, string.format('%d%03d ', time[1], time[2] / 1000) .. EVENT)
    call('LTRIM', CONVERSATION_HISTORY, -MAX_EVENTS, -1)
  end
  if CONVERSATION_HISTORY then
    call('PEXPIRE', CONVERSATION_HISTORY, string.format('%d', math.max(left_ms or 0, TTL * 1000) + HISTORY_LAG_MS))
  end
  if COUNTS == 'done' then
    call('INCR', COUNTER)
  end
  if not LAG then
    return
  end
  if COUNTS == 'created' then
    call('HINCRBY', COUNTER, ROUTE_NAME, 1)
    call('EXPIRE', COUNTER, MINUTE_KEPT)
    call('HINCRBY', HOUR_COUNTER, ROUTE_NAME, 1)
    call('EXPIRE', HOUR_COUNTER, HOUR_KEPT)
  end
  if not left_ms then
    call('ZREM', ALL, ID)
  end
  if not left_ms or FORMER_OWNER ~= OWNER then
    call('ZREM', FORMER_OWNER, ID)
  end
  if not left_ms or FORMER_ROUTE ~= ROUTE then
    call('ZREM', FORMER_ROUTE, ID)
  end
  if not left_ms then
    return
  end
  local former = keep_score and call('ZSCORE', ALL, ID)
  if type(former) == 'string' then
    enter(ROUTE, former, ID, left_ms)
    enter_route(former, left_ms)
    return
  end
  local time = redis.call('TIME')
  local now = time[1] + time[2] / 1000000
  local score = string.format('%d', now + left_ms / 1000)
  for _, zset in ipairs({ROUTE, ALL, OWNER}) do
    enter(zset, score, ID, left_ms, now)
  end
  enter_route(score, left_ms, now)
end
