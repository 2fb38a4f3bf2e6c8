-- Look through a part of the history, or at its end.
--
-- Returns {[entry id, conversation id, event, ...], last}: oldest first; `last` is the last entry that was looked at, nil
-- when there was none.
local stream, id = KEYS[1], ARGV[1]       -- a conversation's id, '' for all
local after, count = ARGV[2], ARGV[3]     -- an entry's id, '-' for the beginning, '' for the last `count`

local entries
if after == '' then
  entries = redis.pcall('XREVRANGE', stream, '+', '-', 'COUNT', count)
else
  entries = redis.pcall('XRANGE', stream, after == '-' and '-' or '(' .. after, '+', 'COUNT', count)
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
