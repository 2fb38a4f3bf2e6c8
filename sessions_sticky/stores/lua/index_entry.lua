-- Entries of the index: put in front of the scripts that make them.
--
-- A ZSET's scores are expiries: whole Unix seconds of the server's clock, which is one for all its clients. The index
-- may lag behind the session by `lag` seconds, so an entry is surely dead only when it is that long overdue.
local MAX_TRIMMED = 100
local MAX_TOLD, WALK_KEPT = 100000, 300

-- The change itself is done by then: a broken key of the index must not make it look failed.
local call = redis.pcall

local function tell_walk(walk, id, moved_up)
  local missed, met = walk .. ':missed', walk .. ':met'
  if not moved_up then
    call('SADD', met, id)
    call('EXPIRE', met, WALK_KEPT)
  elseif call('SREM', met, id) ~= 1 then
    call('RPUSH', missed, id)
    call('EXPIRE', missed, WALK_KEPT)
  end
  return call('LLEN', missed), call('SCARD', met)
end

-- A walk through the pages goes from the latest expiry downwards: what moves up past it would be missed, what moves
-- down past it (to a shorter idle time) met twice. As a concurrent garbage collector's write barrier does, whoever
-- moves an entry notes it for the walk: in the LIST of the missed, or the SET of those met before they are come by.
local function tell_walks(key, id, former, score, now)
  local walks = call('HGETALL', key)
  for i = 1, #walks, 2 do
    local lease_end, at_score, at_member = walks[i + 1]:match('^(%S+) (%S+) (.*)$')
    lease_end, at_score = tonumber(lease_end), tonumber(at_score)
    local function is_ahead(its_score)
      return its_score < at_score or its_score == at_score and below(id, at_member)
    end
    if not lease_end or not at_score or lease_end < now then
      call('HDEL', key, walks[i])
    elseif is_ahead(former) ~= is_ahead(score) then
      local missed, met = tell_walk(key .. ':' .. walks[i], id, is_ahead(former))
      if type(missed) ~= 'number' or type(met) ~= 'number' or missed + met > MAX_TOLD then
        call('HDEL', key, walks[i])
      end
    end
  end
end

-- Trimming a little with each new entry is enough, and so is setting a key's expiry once in a while, ahead by the lag at
-- most: no key may outlive its last session by much more than an idle time. `entries` are score, id, score, id ...;
-- `left_ms` the longest idle time left of them; without `now` nothing is trimmed.
local function enter(key, entries, left_ms, now, lag)
  local added = call('ZADD', key, unpack(entries))
  if now and type(added) == 'number' and added > 0 then
    local due = call('ZRANGEBYSCORE', key, '-inf', score_at(now - lag), 'LIMIT', 0, MAX_TRIMMED)
    if #due > 0 then
      call('ZREM', key, unpack(due))
    end
  end
  local kept_ms = left_ms + lag * 1000
  local ttl = call('PTTL', key)
  if type(ttl) == 'number' and ttl < kept_ms then
    call('PEXPIRE', key, string.format('%d', kept_ms + math.min(left_ms / 2, lag * 1000)))
  end
end

-- A route's entry is there as long as any of its sessions.
local function enter_route(key, name, score, left_ms, now, lag)
  local known = call('ZSCORE', key, name)
  if type(known) ~= 'string' or tonumber(known) < tonumber(score) then
    enter(key, {score, name}, left_ms, now, lag)
  end
end

-- `places` names the keys: all, routes, walks, owner, route; and the route_name. `keep` leaves an entry where it is, but
-- for the route.
local function enter_session(places, id, left_ms, lag, keep)
  local former = call('ZSCORE', places.all, id)
  local is_known = type(former) == 'string'
  if keep and is_known then
    enter(places.route, {former, id}, left_ms, nil, lag)
    enter_route(places.routes, places.route_name, former, left_ms, nil, lag)
    return
  end
  local now = seconds()
  local score = score_at(now + left_ms / 1000)
  if is_known then
    tell_walks(places.walks, id, tonumber(former), tonumber(score), now)
  end
  for _, zset in ipairs({places.route, places.all, places.owner}) do
    enter(zset, {score, id}, left_ms, now, lag)
  end
  enter_route(places.routes, places.route_name, score, left_ms, now, lag)
end
