-- Adds a grant to an account's lease, once (core/domain/money/lease.c). KEYS: the lease's, lease:epoch. ARGV: the epoch in which it was
-- granted, its generation, its number in that, picodollars.
-- 1: applied; 0: it was; -1: Redis has lost something since, or the generation is over.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return -1
end
local generation, number = tonumber(ARGV[2]), tonumber(ARGV[3])
local lease = redis.call('HMGET', KEYS[1], 'gen', 'applied', 'past')
local current, applied, past = tonumber(lease[1] or 0), tonumber(lease[2] or 0), tonumber(lease[3] or 0)
if number == 1 and current < generation and past < generation then
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], 'gen', ARGV[2], 'applied', 1, 'free', ARGV[4])
    return 1
end
if current ~= generation or applied < number - 1 then
    return -1
end
if applied >= number then
    return 0
end
redis.call('HINCRBY', KEYS[1], 'free', ARGV[4])
redis.call('HSET', KEYS[1], 'applied', ARGV[3])
return 1
