-- Each connection's first words (core/store/redis_connect.c). A Redis that was started again may have read older data from its
-- disk, in which money is free that calls have spent since. So what was lent to another run of it is forgotten before anybody can
-- ask for it, as if all had been lost (core/domain/money/lease.h). ARGV: patterns of keys. Returns how many were removed.
local run = redis.call('GET', 'lease:run')
if not run or string.find(redis.call('INFO', 'server'), 'run_id:' .. run, 1, true) then
    return 0
end
local removed = 0
for _, pattern in ipairs(ARGV) do
    local cursor = '0'
    repeat
        local found = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', 1000)
        cursor = found[1]
        for _, key in ipairs(found[2]) do
            removed = removed + redis.call('DEL', key)
        end
    until cursor == '0'
end
return removed
