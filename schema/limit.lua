-- Takes from several rate limits or from none of them (core/store/limit_redis.c).
-- KEYS: one for each limit. ARGV: five for each: kind, what is needed at least, what there may be at most, what is asked for,
-- and the key's TTL in seconds.
--   window  a counter
--   lease   a counter too. It gives what there is, up to what is asked for, whether or not the others admit: a loop keeps it in
--           stock
--   bucket  the moment when it will be full, in microseconds of this server's clock; needed, most and asked for are microseconds
--           too, and the key lives until then
-- Returns whether all admit, and for each limit what was taken and what its count is now (of a bucket: until it is full).
local function set_bucket(key, now, count)
    redis.call('SET', key, string.format('%.0f', now + count), 'PX', math.ceil(count / 1000) + 1000)
end

local now
local admits = 1
local limits = {}

for i, key in ipairs(KEYS) do
    local kind, needed, most, asked, ttl = unpack(ARGV, 5 * i - 4, 5 * i)
    local limit = {kind = kind, asked = tonumber(asked), ttl = ttl}
    local stored = redis.call('GET', key)
    local count = tonumber(stored or 0)
    if kind == 'bucket' then
        if not now then
            local time = redis.call('TIME')
            now = time[1] * 1000000 + time[2]
        end
        count = math.max(count - now, 0)
        if count > tonumber(most) then
            -- Emptier than empty: the clock was set back, or the limit has another burst now. It is filled from here on.
            count = tonumber(most)
            set_bucket(key, now, count)
        end
    end
    limit.is_new = not stored
    limit.count = count
    limit.room = tonumber(most) - count
    if limit.room < tonumber(needed) then
        admits = 0
    end
    limits[i] = limit
end

local answer = {admits}
for i, key in ipairs(KEYS) do
    local limit = limits[i]
    local taken = admits * limit.asked
    if limit.kind == 'lease' then
        taken = math.max(0, math.min(limit.asked, limit.room))
    end
    local count = limit.count + taken
    if taken > 0 and limit.kind == 'bucket' then
        set_bucket(key, now, count)
    elseif taken > 0 then
        redis.call('INCRBY', key, taken)
        if limit.is_new then
            redis.call('EXPIRE', key, limit.ttl)
        end
    end
    answer[2 * i] = taken
    answer[2 * i + 1] = count
end
return answer
