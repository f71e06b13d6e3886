-- Adds an entry to the shorter of a tenant's two lanes (core/store/queue.c). KEYS: the lanes. ARGV: fields and values.
local lane = KEYS[1]
local length = redis.call('XLEN', lane)
if length > 0 and redis.call('XLEN', KEYS[2]) < length then
    lane = KEYS[2]
end
return redis.call('XADD', lane, '*', unpack(ARGV))
