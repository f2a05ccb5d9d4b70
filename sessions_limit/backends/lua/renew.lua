-- Prolong sessions and note what they did. Returns the standing of each, in order.
birth()
local standings = {}
for i, renewal in ipairs(asked.renewals) do
    local live = open(renewal.scope)
    local session = key('session', renewal.scope, renewal.digest)
    local found = fields(session)
    local standing = 'alive'
    if tonumber(found.generation or 0) > renewal.generation then
        standing = 'revoked'
    elseif not redis.call('ZSCORE', live, renewal.digest) then
        if wait_for_place(live, renewal.limit) then
            standing = 'lost'
        else
            begin(session)
            redis.call('HSET', session, 'generation', int(renewal.generation))
            found = fields(session)
        end
    end
    if standing == 'alive' then
        running(session, found, renewal.hold.worker)
        live_until(live, renewal.digest, now + renewal.lifetime)
        note(session, found, renewal.client, renewal.hold)
        redis.call('HINCRBY', session, 'requests', int(renewal.requests))
        if #renewal.account_names > 0 then
            local names, known = {}, {}
            local before = cjson.decode(found.account_names or '[]')
            for _, list in ipairs({ renewal.account_names, before }) do
                for _, name in ipairs(list) do
                    if not known[name] and #names < asked.most_names then
                        known[name] = true
                        names[#names + 1] = name
                    end
                end
            end
            redis.call('HSET', session, 'account_names', cjson.encode(names))
        end
    end
    standings[i] = standing
end
return standings
