-- Forget sessions that have ended; keys go by themselves. Returns how many.
local pruned = 0
for _, scope in ipairs(redis.call('ZRANGE', key('scopes'), 0, -1)) do
    local before = redis.call('ZCARD', key('live', scope))
    pruned = pruned + before - redis.call('ZCARD', open(scope))
end
return pruned
