-- What the scripts share. ARGV[1] is JSON; all times and spans are milliseconds.
--
-- Keys, all with the prefix in KEYS[1]:
--   born             when this Redis began to know sessions; another one: it forgot all
--   scopes           scopes, by when they may be forgotten
--   clock:SCOPE      the latest time seen there
--   live:SCOPE       digests of sessions that are alive, by when they end
--   session:SCOPE:D  one session, while it lives or its revocation must be remembered
--   revoked          what was revoked, as JSON of scope and digest, by when it is history
--   blocked          what is blocked, likewise, by when the block ends
local asked = cjson.decode(ARGV[1])
local prefix = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + asked.offset

local function key(...)
    return prefix .. ':' .. table.concat({ ... }, ':')
end

-- Lua would write large numbers with an exponent.
local function int(number)
    return string.format('%.0f', number)
end

local function birth()
    local born = redis.call('GET', key('born'))
    if not born then
        born = int(now)
        redis.call('SET', key('born'), born)
    end
    return born
end

-- Drop what has ended. A clock that was set back must neither revive nor prolong: all
-- deadlines of the scope move back with it.
local function open(scope)
    local live = key('live', scope)
    local last = tonumber(redis.call('GET', key('clock', scope)) or now)
    if now < last then
        for _, digest in ipairs(redis.call('ZRANGE', live, 0, -1)) do
            redis.call('ZINCRBY', live, int(now - last), digest)
        end
    end
    redis.call('SET', key('clock', scope), int(now), 'PX', int(asked.kept))
    redis.call('ZREMRANGEBYSCORE', live, '-inf', int(now))
    redis.call('ZADD', key('scopes'), int(now + asked.kept), scope)
    redis.call('ZREMRANGEBYSCORE', key('scopes'), '-inf', int(now))
    redis.call('PEXPIRE', key('scopes'), int(asked.kept))
    return live
end

-- nil if there is a place, else how long there will be none at least.
local function wait_for_place(live, limit)
    local count = redis.call('ZCARD', live)
    if count < limit then
        return nil
    end
    local ends = redis.call('ZRANGE', live, count - limit, count - limit, 'WITHSCORES')
    return tonumber(ends[2]) - now
end

local function live_until(live, digest, at)
    redis.call('ZADD', live, 'GT', int(at), digest)
    redis.call('PEXPIRE', live, int(asked.kept))
end

local function fields(session)
    local found, flat = {}, redis.call('HGETALL', session)
    for i = 1, #flat, 2 do
        found[flat[i]] = flat[i + 1]
    end
    return found
end

-- Requests that all workers but one have running. A worker that died says no more.
local function running(session, found, without)
    local count = 0
    for name, value in pairs(found) do
        if name:sub(1, 5) == 'hold:' then
            local number, until_, _ = value:match('^(%d+):(%d+):(%d+)$')
            if tonumber(until_) <= now then
                redis.call('HDEL', session, name)
            elseif name ~= 'hold:' .. without then
                count = count + tonumber(number)
            end
        end
    end
    return count
end

local function note(session, found, client, hold)
    local number, sequence = hold.running, hold.sequence
    local held = found['hold:' .. hold.worker]
    if held then
        local number_before, _, sequence_before = held:match('^(%d+):(%d+):(%d+)$')
        if tonumber(sequence_before) >= sequence then
            number, sequence = tonumber(number_before), tonumber(sequence_before)
        end
    end
    redis.call('HSET', session,
        'ip', client.ip, 'user_agent', client.user_agent,
        'key_id', int(client.key_id), 'key_name', client.key_name,
        'last_seen', int(now),
        'hold:' .. hold.worker,
        int(number) .. ':' .. int(now + asked.hold_lasts) .. ':' .. int(sequence))
    if redis.call('PTTL', session) < asked.kept then
        redis.call('PEXPIRE', session, int(asked.kept))
    end
end

local function begin(session)
    redis.call('HSET', session, 'first_seen', int(now), 'requests', '0')
    redis.call('HDEL', session, 'account_names', 'blocked_until')
end
