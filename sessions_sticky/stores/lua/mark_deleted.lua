-- Mark a session as deleted that is not there. See mark.lua.
return mark_deleted(KEYS[1], ARGV[1], ARGV[2])
