-- Enter a session in the index, or bring its entries up to date; unless its value has changed meanwhile: whoever changed
-- it has seen to them. Atomic.
--
--   KEYS as in record_change.lua; ARGV from 8 on: idle time left, milliseconds; the value, '' for any; '1' to leave alone
--   entries that are there.
--
-- Returns 1 when the session was not in its route's ZSET before, else 0.
local current = value()
if ARGV[9] ~= '' and current ~= ARGV[9] then
  if not current then
    record()  -- whoever deleted it did not know the places it had before
  end
  return 0
end
local of_owner, of_route = redis.pcall('ZSCORE', KEYS[7], ARGV[1]), redis.pcall('ZSCORE', KEYS[8], ARGV[1])
if not (of_owner and of_route and ARGV[10] == '1') then
  record(tonumber(ARGV[8]))
end
return of_route and 0 or 1
