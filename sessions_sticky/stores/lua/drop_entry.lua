-- Drop an index entry whose session is gone, unless the entry has changed since it was read.
--
-- Returns 1 when the entry was there, else 0.
local zset, id, score = KEYS[1], ARGV[1], tonumber(ARGV[2]) -- a number: Redis writes scores differently in its replies

local found = redis.pcall('ZSCORE', zset, id)
if type(found) == 'string' and tonumber(found) == score then
  return redis.call('ZREM', zset, id)
end
return 0
