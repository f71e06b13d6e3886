-- Gives back what was taken from a rate limit (core/store/limit_redis.c): never more than was taken, and nothing where nothing
-- was counted. KEYS: the limit's. ARGV: "window" or "bucket", and how much: a number, or microseconds.
local stored = redis.call('GET', KEYS[1])
if not stored then
    return 0
end
local back = tonumber(ARGV[2])
if ARGV[1] == 'window' then
    back = math.min(back, math.max(0, tonumber(stored)))
    redis.call('DECRBY', KEYS[1], back)
else
    redis.call('SET', KEYS[1], string.format('%.0f', stored - back), 'KEEPTTL')
end
return back
