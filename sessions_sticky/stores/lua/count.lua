-- Count the live entries of some of the index's ZSETs.
--
-- KEYS are the ZSETs. Returns {[live, id, score, id, score, ...], ...}, one list for each: the number of entries that
-- are not due, and the entries that are due by less than `lag`, whose sessions may be alive: at most `most_due` in all.
local lag, most_due = ARGV[1], tonumber(ARGV[2]) -- seconds that an entry may lag behind its session; entries
local now = redis.call('TIME')[1]
local since, till = string.format('%d', now - lag), string.format('%d', now + 1)
local counts = {}
for i, key in ipairs(KEYS) do
  counts[i] = {0}
  if redis.call('TYPE', key).ok == 'zset' then
    local due = redis.call('ZRANGEBYSCORE', key, since, '(' .. till, 'WITHSCORES', 'LIMIT', 0, most_due)
    counts[i] = {redis.call('ZCOUNT', key, till, '+inf'), unpack(due)}
    most_due = most_due - #due / 2
  end
end
return counts
