-- Enter sessions that the index does not have, or has with another expiry; or tell which they are. One whose value has
-- changed meanwhile is left out: whoever changed it has seen to its entry.
--
--   KEYS   1 all sessions, ZSET     2 routes, ZSET    3 walks, HASH    then of each session: its owner's ZSET, its
--          route's, its own key
--   ARGV   1 lag in seconds         2 '1' to enter    then of each session: its id, its idle time left in milliseconds,
--          the name of its route, its value ('' for any)
--
-- Returns the places of those sessions in the list, from 1 on; negative where the index did not know the session at all.
local lag, now = tonumber(ARGV[1]), seconds()

local function is_late(zset, member, expiry)
  local score = call('ZSCORE', zset, member)
  return type(score) ~= 'string' or expiry - tonumber(score) > lag + 1
end

local function is_off(zset, member, expiry)
  local score = call('ZSCORE', zset, member)
  return type(score) ~= 'string' or math.abs(expiry - tonumber(score)) > lag + 1
end

local late = {}
for i = 1, (#ARGV - 2) / 4 do
  local id, left_ms, name, raw = ARGV[4 * i - 1], tonumber(ARGV[4 * i]), ARGV[4 * i + 1], ARGV[4 * i + 2]
  local places = {all = KEYS[1], routes = KEYS[2], walks = KEYS[3], owner = KEYS[3 * i + 1], route = KEYS[3 * i + 2]}
  places.route_name = name
  local expiry, is_new = now + left_ms / 1000, not call('ZSCORE', places.all, id)
  if
    is_new
    or is_off(places.all, id, expiry)
    or is_off(places.owner, id, expiry)
    or is_off(places.route, id, expiry)
    or is_late(places.routes, name, expiry)
  then
    if raw == '' or call('GET', KEYS[3 * i + 3]) == raw then
      table.insert(late, is_new and -i or i)
      if ARGV[2] == '1' then
        enter_session(places, id, left_ms, now, lag)
      end
    end
  end
end
return late
