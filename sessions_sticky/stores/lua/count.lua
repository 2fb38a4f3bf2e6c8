-- Count the living entries of some of the index's ZSETs.
--
--   EVALSHA count n zset... lag_seconds most_due
--
-- Returns {[living, id, score, id, score, ...], ...}, one list for each ZSET: the entries that are not yet due, and those
-- that are, by less than the lag of the index, so that their sessions may be alive; of these at most so many in all.
local room = tonumber(ARGV[2])
local now = seconds()
local since, till = score_at(now - ARGV[1]), score_at(now + 1)
local counts = {}
for i, key in ipairs(KEYS) do
  counts[i] = {0}
  if redis.call('TYPE', key).ok == 'zset' then
    local due = redis.call('ZRANGEBYSCORE', key, since, '(' .. till, 'WITHSCORES', 'LIMIT', 0, room)
    counts[i] = {redis.call('ZCOUNT', key, till, '+inf'), unpack(due)}
    room = room - #due / 2
  end
end
return counts
