-- Marks a session as deleted, not lost. Prepended to remove and mark_deleted.
--
-- The marker is the `created_at` of the latest binding that was deleted, never lowered: bindings up to it are not
-- restored. '1', which other programs write, and anything but a number stand for all bindings; later deletions keep them.
local function mark_deleted(marker, created_at, ttl) -- Unix seconds; seconds
  local former = redis.pcall('GET', marker)
  local latest = type(former) == 'string' and former:match('^%s*%+?%d+%s*$') and tonumber(former)
  local is_earlier = latest and latest > 1 and latest < tonumber(created_at)
  if former and not is_earlier then
    return redis.pcall('EXPIRE', marker, ttl)
  end
  return redis.pcall('SET', marker, created_at, 'EX', ttl)
end
