-- Note in the index and the history what was changed on another server of a Redis Cluster.
--
--   KEYS as in record_change.lua, but for the first two, which are not used; ARGV from 8 on: idle time left in milliseconds, ''
--   when the session is gone; '1' leaves the entry where it is.
record(tonumber(ARGV[8]), ARGV[9] == '1')
