-- Write the record of a job by compare-and-set. Atomic.
--
-- Returns 1 when written, else 0.
local record_key, done_key, jobs_key = KEYS[1], KEYS[2], KEYS[3] -- record; number of changes; ZSET key -> updated_at
local expected, record, key = ARGV[1], ARGV[2], ARGV[3]          -- expected is '' for a new job
local updated_at, kept = ARGV[4], ARGV[5]                        -- Unix seconds; seconds

local current = redis.pcall('GET', record_key) or ''
if current ~= expected then
  return 0
end
redis.call('SET', record_key, record, 'EX', kept)
local call = redis.pcall -- the record is written by then
call('SET', done_key, 0, 'NX')
call('EXPIRE', done_key, kept)
call('ZADD', jobs_key, updated_at, key)
call('ZREMRANGEBYSCORE', jobs_key, '-inf', '(' .. updated_at - kept)
call('EXPIRE', jobs_key, kept)
return 1
