-- Enter sessions that the index does not have, or has with another expiry; or tell which they are. One whose value has
-- changed meanwhile is left out: whoever changed it has seen to its entry.
--
--   KEYS   1 all sessions, ZSET     2 routes, ZSET    3 walks, HASH    then of each session: its owner's ZSET, its
--          route's, its own key
--   ARGV   1 lag in seconds         2 '1' to enter    then of each session: its id, its idle time left in milliseconds,
--          the name of its route, its value ('' for any)
--
-- Returns the places of those sessions in the list, from 1 on; negative where the index did not know the session at all.
-- Each ZSET is asked once for all of its sessions, and told once: a call costs as much as an entry.
local lag, now = tonumber(ARGV[1]), seconds()
local ALL, ROUTES, WALKS = KEYS[1], KEYS[2], KEYS[3]

local sessions = {}
for i = 1, (#ARGV - 2) / 4 do
  local at = 4 * i - 1
  sessions[i] = {
    place = i, id = ARGV[at], left_ms = tonumber(ARGV[at + 1]), route_name = ARGV[at + 2], raw = ARGV[at + 3],
    owner = KEYS[3 * i + 1], route = KEYS[3 * i + 2], key = KEYS[3 * i + 3],
  }
  sessions[i].expiry = now + sessions[i].left_ms / 1000
end

-- The sessions of each ZSET: {zset -> list}.
local function by_zset(list)
  local zsets = {[ALL] = list}
  for _, session in ipairs(list) do
    for _, zset in ipairs({session.owner, session.route}) do
      zsets[zset] = zsets[zset] or {}
      table.insert(zsets[zset], session)
    end
  end
  return zsets
end

-- The latest expiring session of each route: {route_name -> session}.
local function by_route(list)
  local latest = {}
  for _, session in ipairs(list) do
    local other = latest[session.route_name]
    if not other or other.expiry < session.expiry then
      latest[session.route_name] = session
    end
  end
  return latest
end

local function is_off(score, expiry)
  return type(score) ~= 'string' or math.abs(expiry - tonumber(score)) > lag + 1
end

for zset, list in pairs(by_zset(sessions)) do
  local ids = {}
  for i, session in ipairs(list) do
    ids[i] = session.id
  end
  local scores = call('ZMSCORE', zset, unpack(ids))
  for i, session in ipairs(list) do
    session.is_off = session.is_off or is_off(scores[i], session.expiry)
    if zset == ALL then
      session.former = scores[i]
    end
  end
end
local late_routes = {}
for name, session in pairs(by_route(sessions)) do
  local score = call('ZSCORE', ROUTES, name)
  late_routes[name] = type(score) ~= 'string' or session.expiry - tonumber(score) > lag + 1
end

local late, places = {}, {}
for _, session in ipairs(sessions) do
  if session.is_off or late_routes[session.route_name] then
    if session.raw == '' or call('GET', session.key) == session.raw then
      table.insert(late, session)
      table.insert(places, session.former and session.place or -session.place)
    end
  end
end
if ARGV[2] ~= '1' or #late == 0 then
  return places
end

for _, session in ipairs(late) do
  session.score = score_at(session.expiry)
  if session.former then
    tell_walks(WALKS, session.id, tonumber(session.former), tonumber(session.score), now)
  end
end
for zset, list in pairs(by_zset(late)) do
  local entries, left_ms = {}, 0
  for _, session in ipairs(list) do
    table.insert(entries, session.score)
    table.insert(entries, session.id)
    left_ms = math.max(left_ms, session.left_ms)
  end
  enter(zset, entries, left_ms, now, lag)
end
for name, session in pairs(by_route(late)) do
  enter_route(ROUTES, name, session.score, session.left_ms, now, lag)
end
return places
