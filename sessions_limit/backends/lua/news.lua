-- Returns {birth, scope, digest, generation, scope, digest, generation, ...}.
local news = { birth() }
redis.call('ZREMRANGEBYSCORE', key('revoked'), '-inf', int(now))
for _, id in ipairs(redis.call('ZRANGE', key('revoked'), 0, -1)) do
    local scope, digest = unpack(cjson.decode(id))
    local generation = redis.call('HGET', key('session', scope, digest), 'generation')
    if generation then
        news[#news + 1] = scope
        news[#news + 1] = digest
        news[#news + 1] = generation
    end
end
return news
