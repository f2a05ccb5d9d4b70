-- Let a session in, or keep it alive if it is in already.
-- Returns {'entered', generation} or {obstacle, wait}.
local live = open(asked.scope)
local session = key('session', asked.scope, asked.digest)
local found = fields(session)

local blocked_until = tonumber(found.blocked_until or 0)
if blocked_until > now then
    return { 'blocked', int(blocked_until - now) }
end
if not redis.call('ZSCORE', live, asked.digest) then
    local age = now - tonumber(birth())
    if age >= 0 and age < asked.settling then
        return { 'settling', int(asked.settling - age) }
    end
    local wait = wait_for_place(live, asked.limit)
    if wait then
        return { 'full', int(wait) }
    end
    begin(session)
end
local others = running(session, found, asked.hold.worker)
if asked.max_requests > 0 and others + asked.hold.running > asked.max_requests then
    return { 'busy', '0' }
end
live_until(live, asked.digest, now + asked.ttl)
note(session, found, asked.client, asked.hold)
return { 'entered', found.generation or '0' }
