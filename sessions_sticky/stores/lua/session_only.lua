-- Put in front of the scripts that change a session where its index and history lie on another server, and follow in a
-- step of their own (update_index.lua): the nodes of a Redis Cluster. They get the session's key alone.
local call = redis.pcall

local function record() end
