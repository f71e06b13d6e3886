-- Takes money for an AI call that needs no provider, from the account's lease (core/domain/money/lease.h); PostgreSQL hears of it from
-- who asks. ARGV: account, picodollars, the day's limit (-1: none), the day.
-- -> ok generation | short generation applied | spend | load
local account, need, limit, day = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local lease, spent = 'lease:' .. account, 'spend:' .. account .. ':' .. day
if limit >= 0 then
    local today = redis.call('GET', spent)
    if not today then
        return {'load'}
    end
    if tonumber(today) + need > limit then
        return {'spend'}
    end
end
local v = redis.call('HMGET', lease, 'gen', 'applied', 'free')
if not v[1] or tonumber(v[3] or 0) < need then
    return {'short', v[1] or '0', v[2] or '0'}
end
redis.call('HINCRBY', lease, 'free', '-' .. ARGV[2])
if limit >= 0 then
    redis.call('INCRBY', spent, ARGV[2])
else
    -- Nobody counts this day: it is summed up anew once there is a limit.
    redis.call('UNLINK', spent)
end
return {'ok', v[1]}
