-- A worker that leaves puts a volatile job back into its lane (workers/ack.c), in one step with the end of the entry
-- that it read. KEYS: the lane. ARGV: consumer group, id of the entry, fields and values.
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
if redis.call('XDEL', KEYS[1], ARGV[2]) == 1 then
    redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))
end
return redis.status_reply('OK')
