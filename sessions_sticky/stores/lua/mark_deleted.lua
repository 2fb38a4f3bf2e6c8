-- Mark a session that does not exist as deleted. See mark.lua.
return mark_deleted(KEYS[1], ARGV[1], ARGV[2])
