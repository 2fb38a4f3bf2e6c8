-- SCAN or ZSCAN, as Redis answers them: redis-py reads their replies in a form of its own, but not in all places.
--
--   EVALSHA scan 0|1 [key] command argument...
return redis.pcall(unpack(ARGV))
