-- Look through a part of the history, or at its end.
--
--   EVALSHA history 1 stream id after count        id: a conversation's, '' for all
--                                                  after: an entry's id, '-' for the beginning, '' for the last `count`
--
-- Returns {[entry id, conversation id, event, ...], last}: oldest first; `last` is the last entry that was looked at, nil
-- when there was none.
local id, after, count = ARGV[1], ARGV[2], ARGV[3]
local entries
if after == '' then
  entries = redis.pcall('XREVRANGE', KEYS[1], '+', '-', 'COUNT', count)
else
  entries = redis.pcall('XRANGE', KEYS[1], after == '-' and '-' or '(' .. after, '+', 'COUNT', count)
end
local first, last, step = 1, #entries, 1
if after == '' then
  first, last, step = #entries, 1, -1
end
local found, seen = {}, false
for i = first, last, step do
  local entry, fields = entries[i][1], entries[i][2]
  seen = entry
  if #fields == 4 and (id == '' or id == fields[2]) then
    table.insert(found, entry)
    table.insert(found, fields[2])
    table.insert(found, fields[4])
  end
end
return {found, seen}
