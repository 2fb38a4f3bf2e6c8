-- SCAN, as Redis answers it: redis-py reads its reply in a form of its own, but not in all places.
--
--   EVALSHA scan 0 cursor argument...
return redis.pcall('SCAN', unpack(ARGV))
