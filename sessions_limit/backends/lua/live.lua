-- Returns the sessions that are alive or blocked, each as JSON.
local shown, known = {}, {}
local function show(scope, digest, ends)
    local session = key('session', scope, digest)
    local found = fields(session)
    if known[session] or not found.last_seen then
        return
    end
    known[session] = true
    found.in_flight = running(session, found, '')
    found.scope, found.digest, found.expires_at = scope, digest, ends
    found.is_alive = ends > now
    shown[#shown + 1] = cjson.encode(found)
end
redis.call('ZREMRANGEBYSCORE', key('blocked'), '-inf', int(now))
for _, scope in ipairs(redis.call('ZRANGE', key('scopes'), 0, -1)) do
    local alive = redis.call('ZRANGE', open(scope), 0, -1, 'WITHSCORES')
    for i = 1, #alive, 2 do
        show(scope, alive[i], tonumber(alive[i + 1]))
    end
end
for _, id in ipairs(redis.call('ZRANGE', key('blocked'), 0, -1)) do
    local scope, digest = unpack(cjson.decode(id))
    show(scope, digest, now)
end
return shown
