-- Takes an account's lease back whole (core/domain/money/lease.c): nothing is given out of this generation or an older one any more, and
-- no grant of them is applied. KEYS: the lease's. ARGV: the generation. Returns what was free, as text; nil: that generation
-- was not here.
local generation = tonumber(ARGV[1])
local lease = redis.call('HMGET', KEYS[1], 'gen', 'free', 'past')
local current, past = tonumber(lease[1] or 0), tonumber(lease[3] or 0)
if current > generation or past > generation then
    return false
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'past', ARGV[1])
redis.call('EXPIRE', KEYS[1], 86400)
return current == generation and lease[2]
