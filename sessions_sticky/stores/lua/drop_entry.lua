-- Drop an entry of the index whose session is gone, unless it was entered anew meanwhile. Atomic.
--
--   EVALSHA drop_entry 1 zset id score         score: as a number, for Redis writes it differently in its replies
--
-- Returns 1 when the entry was there, else 0.
local score = redis.pcall('ZSCORE', KEYS[1], ARGV[1])
if type(score) == 'string' and tonumber(score) == tonumber(ARGV[2]) then
  return redis.call('ZREM', KEYS[1], ARGV[1])
end
return 0
