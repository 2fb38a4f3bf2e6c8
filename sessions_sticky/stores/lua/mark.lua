-- Marks a session as deleted, not lost. Put in front of remove and mark_deleted.
--
-- The marker is the `created_at` of the latest binding that was deleted, never lowered: what was bound before is not
-- restored. Another program may have written '1', which is for all bindings; a later deletion says which.
local function mark_deleted(marker, created_at, ttl) -- Unix seconds; seconds
  local former = redis.pcall('GET', marker)
  local latest = type(former) == 'string' and tonumber(former)
  if latest and latest >= tonumber(created_at) then
    return redis.pcall('EXPIRE', marker, ttl)
  end
  return redis.pcall('SET', marker, created_at, 'EX', ttl)
end
