-- What Redis has of an account's lease (core/domain/money/lease.c). KEYS: the lease's, lease:epoch, lease:run. Returns the epoch, made now
-- if there is none, together with a note of which run of Redis this is; then generation, number of the last grant applied, what is free, and the highest generation that is over; 0 for each that
-- is not there. As text: a Lua number would lose digits.
local epoch = redis.call('GET', KEYS[2])
if not epoch then
    local time = redis.call('TIME')
    epoch = string.format('%.0f', time[1] * 1000000 + time[2])
    redis.call('SET', KEYS[2], epoch)
    redis.call('SET', KEYS[3], string.match(redis.call('INFO', 'server'), 'run_id:(%w+)'))
end
local answer = {epoch}
for i, value in ipairs(redis.call('HMGET', KEYS[1], 'gen', 'applied', 'free', 'past')) do
    answer[1 + i] = value or '0'
end
return answer
