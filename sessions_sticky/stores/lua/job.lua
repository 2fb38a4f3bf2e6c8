-- Write the record of a bulk operation, if it still is the expected one. Atomic.
--
--   KEYS   1 record     2 number of changes     3 all operations, ZSET key -> Unix seconds of its last change
--   ARGV   1 expected record, '' for none       2 record     3 key     4 Unix seconds     5 time that it is kept, seconds
--
-- Returns 1 when written, else 0.
local current = redis.pcall('GET', KEYS[1]) or ''
if current ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[5])
local call = redis.pcall  -- the record is written by then
call('SET', KEYS[2], 0, 'NX')
call('EXPIRE', KEYS[2], ARGV[5])
call('ZADD', KEYS[3], ARGV[4], ARGV[3])
call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. ARGV[4] - ARGV[5])
call('EXPIRE', KEYS[3], ARGV[5])
return 1
