-- What every change of a session has in common: note it in the history and in the index. Put in front of the scripts
-- that make the change (bind, put, replace, remove, refresh), which call `record` once they have made it; so the
-- session, its history and its index change in one step.
--
--   KEYS   1 session key        2 deletion marker        3 all sessions, ZSET        4 routes, ZSET
--          5 walks, HASH        6 history, STREAM        7 owner's sessions, ZSET    8 route's sessions, ZSET
--          9, 10 the same of the session as it was before the change
--          11, 12 created in this minute, in this hour, HASH route -> number; only with ARGV[7]
--   ARGV   1 conversation id    2 idle time, seconds     3 lag of the index in seconds, '' keeps no index
--          4 history length     5 event, JSON, or ''     6 name of the route          7 '1' counts as created
--          8... the change's own
local MINUTE_KEPT, HOUR_KEPT = 2 * 3600, 26 * 3600

-- `left_ms` is the idle time left, nil when the session is gone; `keep` leaves the entry where it is.
local function record(left_ms, keep)
  local id, lag = ARGV[1], tonumber(ARGV[3])
  if ARGV[5] ~= '' then
    call('XADD', KEYS[6], 'MAXLEN', '=', ARGV[4], '*', 'id', id, 'event', ARGV[5])
  end
  if not lag then
    return
  end
  if ARGV[7] == '1' then
    call('HINCRBY', KEYS[11], ARGV[6], 1)
    call('EXPIRE', KEYS[11], MINUTE_KEPT)
    call('HINCRBY', KEYS[12], ARGV[6], 1)
    call('EXPIRE', KEYS[12], HOUR_KEPT)
  end
  if not left_ms then
    call('ZREM', KEYS[3], id)
  end
  if not left_ms or KEYS[9] ~= KEYS[7] then
    call('ZREM', KEYS[9], id)
  end
  if not left_ms or KEYS[10] ~= KEYS[8] then
    call('ZREM', KEYS[10], id)
  end
  if not left_ms then
    return
  end
  local places = {all = KEYS[3], routes = KEYS[4], walks = KEYS[5], owner = KEYS[7], route = KEYS[8], route_name = ARGV[6]}
  enter_session(places, id, left_ms, lag, keep)
end
