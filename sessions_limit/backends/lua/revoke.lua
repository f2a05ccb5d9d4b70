-- End a session and keep it out for a time. Returns 1, or 0 if there is none.
local live = open(asked.scope)
local session = key('session', asked.scope, asked.digest)
if redis.call('EXISTS', session) == 0 then
    return 0
end
redis.call('ZREM', live, asked.digest)
for name, _ in pairs(fields(session)) do
    if name:sub(1, 5) == 'hold:' then
        redis.call('HDEL', session, name)
    end
end
redis.call('HINCRBY', session, 'generation', 1)
local id = cjson.encode({ asked.scope, asked.digest })
local function list(name, at)
    redis.call('ZADD', key(name), int(at), id)
    if redis.call('PTTL', key(name)) < at - now then
        redis.call('PEXPIRE', key(name), int(at - now))
    end
end
list('revoked', now + asked.revoked_kept)
if asked.block > 0 then
    redis.call('HSET', session, 'blocked_until', int(now + asked.block))
    list('blocked', now + asked.block)
else
    redis.call('HDEL', session, 'blocked_until')
    redis.call('ZREM', key('blocked'), id)
end
redis.call('PEXPIRE', session, int(math.max(asked.kept, asked.block)))
return 1
