-- The queue of AI calls (core/domain/ai/queue.h says what it promises): who runs now, who waits, who pays. One script, because
-- every step needs the same parts; ARGV[1] says which step. Keys are named here and not in KEYS: which ones a step touches
-- shows only on the way, so this Redis is one server, not a cluster. schema/redis.md lists them.
--
-- A call's hash, ai:call:{id}:
--   a account  n reserved  g generation of its lease  y day of its spending ('': it is not limited)  f flags: 's' streamed, 'd' durable
--   l deadline while it waits  c channel of who waits for it  b body  m what only the programs read
--   r providers, separated by commas  i which of them it is at  p its name  u bytes it counts as in the queue
--   s 'wait', 'run' or 'end'  w worker  t how often it was handed out  k workers that died of it  x its client has left
--   e begun: something was delivered  o tokens delivered  h its price as a call  j of its prompt  v of a token
--   z the record of its end, for PostgreSQL
-- Money is picodollars, always below 2^53, which Lua's numbers hold exactly.

local PROVIDER, CALL, LEFT = 'ai:provider:', 'ai:call:', 'ai:left:'
local FIRST_CAP = 64     -- calls in flight at a provider that nothing is known of yet
local FAILURES = 5       -- in a row, which open the breaker
local OPEN_MS, OPEN_MOST_MS = 1000, 30000
local KILLS_MOST = 3     -- workers that died of a call
local AGAIN_MS = 30000   -- that a call may wait which was handed out before
local NO_ROOM = 1000000  -- more calls than any worker has
local AT_ONCE = 256      -- calls that one step looks at, at most

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function whole(number)
    return string.format('%.0f', number)
end

-- ---- providers ----

local function provider_of(name)
    local v = redis.call('HMGET', PROVIDER .. name, 'busy', 'cap', 'most', 'open', 'half', 'queued', 'bytes', 'gap')
    return {
        name = name,
        busy = tonumber(v[1] or 0),
        cap = tonumber(v[2] or FIRST_CAP),
        most = tonumber(v[3] or 1),
        open = tonumber(v[4] or 0),
        half = v[5] == '1',
        queued = tonumber(v[6] or 0),
        bytes = tonumber(v[7] or 0),
        gap = tonumber(v[8] or 0)
    }
end

-- Whether the call that was sent to find out is still under way. Others may be for long, from before the breaker opened.
local function is_probed(provider)
    local probe = redis.call('HGET', PROVIDER .. provider.name, 'probe')
    if not probe then
        return false
    end
    local v = redis.call('HMGET', CALL .. probe, 's', 'p')
    return v[1] == 'run' and v[2] == provider.name
end

-- Of a breaker that was open, one call at a time finds out whether it may close.
local function has_place(provider)
    if provider.open > now then
        return false
    end
    if provider.half then
        return provider.busy == 0 or not is_probed(provider)
    end
    return provider.busy < math.min(math.floor(provider.cap), provider.most)
end

local broke = false -- this step has opened a provider's breaker

local function open_breaker(set, opened)
    broke = true
    local pause = math.min(OPEN_MOST_MS, OPEN_MS * 2 ^ opened)
    set('open', whole(now + pause))
    set('half', '1')
    set('probe', '')
    set('opened', tostring(math.min(opened + 1, 10)))
    set('fails', '0')
end

-- What a call's end says of its provider: 'ok', 'rate' (429), 'fail' (5xx, no connection, no answer), or nothing. Returns how many
-- wait for it.
local function learn(name, what, latency_ms, retry_ms)
    local key = PROVIDER .. name
    local v = redis.call('HMGET', key, 'busy', 'cap', 'most', 'half', 'gap', 'last', 'fails', 'opened', 'shrunk', 'fast', 'slow', 'queued')
    local busy, cap, most = tonumber(v[1] or 0), tonumber(v[2] or FIRST_CAP), tonumber(v[3] or 1)
    local half, gap, last = v[4] == '1', tonumber(v[5] or 0), tonumber(v[6] or now)
    local fails, opened, shrunk = tonumber(v[7] or 0), tonumber(v[8] or 0), tonumber(v[9] or 0)
    local words = {'HSET', key, 'last', whole(now)}
    local function set(field, value)
        words[#words + 1] = field
        words[#words + 1] = value
    end
    -- How long a place takes to get free, while somebody waits for one: at other times it says how seldom calls come.
    if tonumber(v[12] or 0) > 0 then
        set('gap', string.format('%.3f', gap + (math.min(now - last, 60000) - gap) / 16))
    end
    -- The cap shrinks once a second at most: calls that were sent together fail together.
    local function shrink(factor)
        if now - shrunk >= 1000 then
            set('cap', string.format('%.3f', math.max(1, math.min(cap, most) * factor)))
            set('shrunk', whole(now))
        end
    end
    if what == 'ok' then
        local fast, slow = tonumber(v[10] or latency_ms), tonumber(v[11] or latency_ms)
        fast = fast + (latency_ms - fast) / 8
        slow = slow + (latency_ms - slow) / 128
        set('fast', string.format('%.2f', fast))
        set('slow', string.format('%.2f', slow))
        if fails > 0 or opened > 0 or half then
            set('fails', '0')
            set('opened', '0')
            set('half', '0')
            set('open', '0')
        end
        if busy + 1 >= math.floor(cap) then
            if fast > 3 * slow + 50 then
                shrink(0.9)
            elseif cap < most then
                set('cap', string.format('%.3f', math.min(most, cap + 1)))
            end
        end
    elseif what == 'rate' then
        shrink(0.7)
        if retry_ms > 0 then
            set('open', whole(now + math.min(retry_ms, 60000)))
        end
    elseif what == 'fail' then
        shrink(0.7)
        if half or fails + 1 >= FAILURES then
            open_breaker(set, opened)
        else
            set('fails', tostring(fails + 1))
        end
        if retry_ms > 0 then
            set('open', whole(now + math.min(retry_ms, 60000)))
        end
    end
    redis.call(unpack(words))
    return tonumber(v[12] or 0)
end

-- ---- money ----

local function pay_back(call, cost)
    local back = tonumber(call.n) - cost
    if back <= 0 then
        return
    end
    if redis.call('HGET', 'lease:' .. call.a, 'gen') == call.g then
        redis.call('HINCRBY', 'lease:' .. call.a, 'free', whole(back))
    end
    if call.y ~= '' then
        local spent = 'spend:' .. call.a .. ':' .. call.y
        if redis.call('EXISTS', spent) == 1 then
            redis.call('DECRBY', spent, whole(back))
        end
    end
end

-- ---- calls ----

local FIELDS = {'a', 'n', 'g', 'y', 'f', 'l', 'c', 'r', 'i', 'p', 'u', 's', 'w', 't', 'k', 'x', 'e', 'o', 'h', 'j', 'v'}

local function call_of(id)
    local values = redis.call('HMGET', CALL .. id, unpack(FIELDS))
    if not values[1] then
        return nil
    end
    local call = {id = id, key = CALL .. id}
    for i, name in ipairs(FIELDS) do
        call[name] = values[i] or ''
    end
    return call
end

local function is_durable(call)
    return string.find(call.f, 'd', 1, true) ~= nil
end

local function tell(call, kind, rest, payload)
    if call.c ~= '' then
        redis.call('PUBLISH', call.c, kind .. ' ' .. call.id .. ' ' .. (call.t ~= '' and call.t or '0') .. ' ' .. rest ..
            '\n' .. payload)
    end
end

-- Ends a call that no worker ends: its client hears of it, and PostgreSQL where there is something to keep.
local function end_here(call, status, code)
    local cost = 0
    local begun = call.e == '1'
    if begun then
        cost = math.min(tonumber(call.n), tonumber(call.h) + tonumber(call.j) + tonumber(call.v) * tonumber(call.o ~= '' and call.o or 0))
    end
    pay_back(call, cost)
    tell(call, 'f', code, '')
    if begun or is_durable(call) then
        redis.call('HSET', call.key, 's', 'end', 'z', '{"status":"' .. status .. '","code":"' .. code .. '","fence":-1,"cost":' ..
            whole(cost) .. ',"completion":' .. (call.o ~= '' and call.o or '0') .. ',"ended":' .. whole(now) .. ',"streamed":' ..
            tostring(string.find(call.f, 's', 1, true) ~= nil) .. ',"provider":"' .. call.p .. '"}')
        redis.call('HDEL', call.key, 'b')
        redis.call('ZADD', 'ai:ended', now, call.id)
    else
        redis.call('UNLINK', call.key)
    end
end

-- The worker with the fewest calls of those that live and have room; its name, or nil.
local function free_worker()
    local found = redis.call('ZRANGE', 'ai:workers', 0, 15, 'WITHSCORES')
    for i = 1, #found, 2 do
        local room = redis.call('GET', 'ai:worker:' .. found[i])
        if room and tonumber(found[i + 1]) < tonumber(room) then
            return found[i]
        end
    end
    return nil
end

-- Hands a call to a worker. The hash gets `more` fields and where it runs.
local function hand_out(call, provider, worker, body, meta, more)
    call.t = tostring(tonumber(call.t ~= '' and call.t or 0) + 1)
    redis.call('HSET', call.key, 's', 'run', 'p', provider.name, 'w', worker, 't', call.t, unpack(more or {}))
    redis.call('HINCRBY', PROVIDER .. provider.name, 'busy', '1')
    provider.busy = provider.busy + 1
    if provider.half then
        redis.call('HSET', PROVIDER .. provider.name, 'probe', call.id)
    end
    redis.call('ZINCRBY', 'ai:workers', '1', worker)
    redis.call('HSET', 'ai:held:' .. worker, call.id, provider.name)
    redis.call('PUBLISH', 'ai:work:' .. worker, table.concat({'r', call.id, call.t, provider.name, call.i, call.a, call.f,
        call.n, call.g, call.c ~= '' and call.c or '-', whole(#meta)}, ' ') .. '\n' .. meta .. body)
end

local function wait_in_line(call, provider, first, more)
    local line = 'ai:line:' .. provider.name .. ':' .. call.a
    if redis.call(first and 'LPUSH' or 'RPUSH', line, call.id) == 1 then
        redis.call('RPUSH', 'ai:turns:' .. provider.name, call.a)
    end
    redis.call('HSET', call.key, 's', 'wait', 'p', provider.name, unpack(more or {}))
    if redis.call('HINCRBY', PROVIDER .. provider.name, 'queued', 1) == 1 then
        redis.call('HSET', PROVIDER .. provider.name, 'last', whole(now))
    end
    redis.call('HINCRBY', PROVIDER .. provider.name, 'bytes', call.u)
    redis.call('ZADD', 'ai:waiting', call.l, call.id)
    redis.call('SADD', 'ai:lines', provider.name)
end

-- The call is out of its line already.
local function left_line(call, name)
    redis.call('HINCRBY', PROVIDER .. name, 'queued', -1)
    redis.call('HINCRBY', PROVIDER .. name, 'bytes', -tonumber(call.u))
    redis.call('ZREM', 'ai:waiting', call.id)
end

local function take_out_of_line(call)
    local line = 'ai:line:' .. call.p .. ':' .. call.a
    if redis.call('LREM', line, 1, call.id) == 0 then
        return
    end
    left_line(call, call.p)
    if redis.call('EXISTS', line) == 0 then
        redis.call('LREM', 'ai:turns:' .. call.p, 1, call.a)
    end
end

-- The next call of a provider's line, each tenant in turn; nil when nobody waits.
local function next_in_line(name)
    for _ = 1, AT_ONCE do
        local tenant = redis.call('LPOP', 'ai:turns:' .. name)
        if not tenant then
            -- Calls whose hashes have gone were counted until now.
            redis.call('SREM', 'ai:lines', name)
            redis.call('HSET', PROVIDER .. name, 'queued', '0', 'bytes', '0')
            return nil
        end
        local line = 'ai:line:' .. name .. ':' .. tenant
        local id = redis.call('LPOP', line)
        if redis.call('EXISTS', line) == 1 then
            redis.call('RPUSH', 'ai:turns:' .. name, tenant)
        end
        local call = id and call_of(id)
        if call then
            left_line(call, name)
            if tonumber(call.l) > now then
                return call
            end
            end_here(call, 'failed', 'queue_timeout')
        end
    end
    return nil
end

-- Fills the free places of a provider.
local function serve(name)
    local provider = provider_of(name)
    for _ = 1, AT_ONCE do
        if provider.queued == 0 and redis.call('LLEN', 'ai:turns:' .. name) == 0 or not has_place(provider) then
            return
        end
        local worker = free_worker()
        local call = worker and next_in_line(name)
        if not call then
            return
        end
        local v = redis.call('HMGET', call.key, 'b', 'm')
        hand_out(call, provider, worker, v[1] or '', v[2] or '')
    end
end

local function split(list)
    local names = {}
    for name in string.gmatch(list, '[^,]+') do
        names[#names + 1] = name
    end
    return names
end

-- Puts a call that was handed out before to a provider of its list, from `from` on: to run or first in line. False when
-- there is none that takes it.
local function place_again(call, from)
    local names = split(call.r)
    for i = from, #names do
        local provider = provider_of(names[i])
        if provider.open <= now then
            call.i = tostring(i)
            redis.call('HSET', call.key, 'i', i)
            local worker = has_place(provider) and free_worker()
            if worker then
                local v = redis.call('HMGET', call.key, 'b', 'm')
                hand_out(call, provider, worker, v[1] or '', v[2] or '')
            else
                wait_in_line(call, provider, true)
            end
            return true
        end
    end
    return false
end

-- A call that ran for a while may wait once more, whatever was left of its time.
local function give_time(call)
    call.l = whole(math.max(tonumber(call.l), now + AGAIN_MS))
    redis.call('HSET', call.key, 'l', call.l)
end

-- The call is no longer its worker's.
local function let_go(call)
    redis.call('HINCRBY', PROVIDER .. call.p, 'busy', '-1')
    redis.call('HDEL', 'ai:held:' .. call.w, call.id)
    redis.call('ZADD', 'ai:workers', 'XX', 'INCR', '-1', call.w)
end

-- ---- steps ----

local steps = {}

-- submit id account need limit day flags wait_ms channel meta body price_call price_prompt price_token count
-- {provider most calls_most tenant_most bytes_most}...
-- -> run | wait | short gen applied | spend | load | full retry_ms | mine retry_ms | late retry_ms | open retry_ms | known
function steps.submit()
    local id, account, need, limit, day = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
    local key = CALL .. id
    if redis.call('EXISTS', key) == 1 then
        return {'known'}
    end
    local lease, spent = 'lease:' .. account, 'spend:' .. account .. ':' .. day
    local generation = '0'
    if need > 0 then
        local v = redis.call('HMGET', lease, 'gen', 'applied', 'free')
        if limit >= 0 then
            local today = redis.call('GET', spent)
            if not today then
                return {'load'}
            end
            if tonumber(today) + need > limit then
                return {'spend'}
            end
        end
        if not v[1] or tonumber(v[3] or 0) < need then
            return {'short', v[1] or '0', v[2] or '0'}
        end
        generation = v[1]
    end
    local wait_ms, body, meta = tonumber(ARGV[8]), ARGV[11], ARGV[10]
    local count = tonumber(ARGV[15])
    local names = {}
    for i = 1, count do
        names[i] = ARGV[11 + 5 * i]
    end
    local call = {id = id, key = key, a = account, n = ARGV[4], g = generation, y = day, f = ARGV[7], c = ARGV[9],
        r = table.concat(names, ','), u = whole(#body + #meta + 512), l = whole(now + wait_ms), t = ''}
    local chosen, worker, index
    local why, retry = 'open', nil
    for i = 1, count do
        local provider = provider_of(names[i])
        local most, calls_most, tenant_most, bytes_most = unpack(ARGV, 12 + 5 * i, 15 + 5 * i)
        most = tonumber(most)
        if provider.most ~= most then
            redis.call('HSET', PROVIDER .. provider.name, 'most', most)
            provider.most = most
        end
        local refused, pause
        if provider.open > now then
            refused, pause = 'open', provider.open - now
        else
            worker = provider.queued == 0 and has_place(provider) and free_worker()
            if not worker then
                local own = redis.call('LLEN', 'ai:line:' .. provider.name .. ':' .. account)
                local others = redis.call('LLEN', 'ai:turns:' .. provider.name)
                local mine = math.min(provider.queued, own * math.max(others, 1) + others) * provider.gap
                if provider.queued >= tonumber(calls_most) or provider.bytes + call.u > tonumber(bytes_most) then
                    refused, pause = 'full', provider.gap * provider.queued / 4
                elseif own >= tonumber(tenant_most) then
                    refused, pause = 'mine', mine / 4
                elseif mine > wait_ms then
                    refused, pause = 'late', mine - wait_ms
                end
            end
        end
        if not refused then
            chosen, index = provider, i
            break
        end
        if not retry or pause < retry then
            why, retry = refused, pause
        end
    end
    if not chosen then
        return {why, math.ceil(math.max(retry or 1000, 1))}
    end
    call.i = tostring(index)
    if need > 0 then
        redis.call('HINCRBY', lease, 'free', '-' .. ARGV[4])
        if limit >= 0 then
            redis.call('INCRBY', spent, ARGV[4])
        else
            -- Nobody counts this day: it is summed up anew once there is a limit.
            call.y = ''
            redis.call('UNLINK', spent)
        end
    end
    local fields = {'a', account, 'n', ARGV[4], 'g', generation, 'y', call.y, 'f', ARGV[7], 'l', call.l, 'c', ARGV[9], 'm', meta,
        'b', body, 'r', call.r, 'i', call.i, 'u', call.u, 'h', ARGV[12], 'j', ARGV[13], 'v', ARGV[14]}
    call.g = generation
    if worker then
        hand_out(call, chosen, worker, body, meta, fields)
    else
        wait_in_line(call, chosen, false, fields)
    end
    redis.call('EXPIRE', key, '172800')
    return {worker and 'run' or 'wait', generation}
end

-- begin id try tokens channel message: the first piece of an answer. From here on no other worker may try it.
-- -> receivers, or -1: the call is another's
function steps.begin()
    local key = CALL .. ARGV[2]
    local v = redis.call('HMGET', key, 't', 's')
    if v[1] and (v[1] ~= ARGV[3] or v[2] ~= 'run') then
        return -1
    end
    if v[1] then
        redis.call('HSET', key, 'e', '1', 'o', ARGV[4])
    end
    return redis.call('PUBLISH', ARGV[5], ARGV[6])
end

-- finish id try cost what latency_ms retry_ms record kind rest payload: the worker's last word of a call.
-- -> ok | broke (the same, and its provider is left alone for a while) | gone (Redis does not know it) | lost (it is another's by now)
function steps.finish()
    local key = CALL .. ARGV[2]
    local v = redis.call('HMGET', key, 'a', 'n', 'g', 'y', 'c', 'p', 's', 'w', 't')
    if not v[1] then
        return 'gone'
    end
    local call = {id = ARGV[2], a = v[1], n = v[2], g = v[3], y = v[4], c = v[5], p = v[6], w = v[8], t = v[9]}
    if call.t ~= ARGV[3] or v[7] ~= 'run' then
        return 'lost'
    end
    let_go(call)
    local waiting = learn(call.p, ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]))
    pay_back(call, tonumber(ARGV[4]))
    tell(call, ARGV[9], ARGV[10], ARGV[11])
    redis.call('HSET', key, 's', 'end', 'z', ARGV[8], 'b', '')
    redis.call('ZADD', 'ai:ended', whole(now), call.id)
    if waiting > 0 then
        serve(call.p)
    end
    return broke and 'broke' or 'ok'
end

-- again id try what latency_ms retry_ms same: nothing was delivered, and it may be tried elsewhere (or, with same 1, here).
-- -> ok | broke | gone | lost | none (there is no other provider for it: it is the caller's still, and learned nothing from)
function steps.again()
    local call = call_of(ARGV[2])
    if not call then
        return 'gone'
    end
    if call.t ~= ARGV[3] or call.s ~= 'run' then
        return 'lost'
    end
    if call.x == '1' or call.e == '1' then
        return 'none'
    end
    local from = tonumber(call.i) + (ARGV[7] == '1' and 0 or 1)
    local names = split(call.r)
    local found = false
    for i = from, #names do
        found = found or ARGV[7] == '1' or provider_of(names[i]).open <= now
    end
    if not found then
        return 'none'
    end
    local name = call.p
    let_go(call)
    if ARGV[4] ~= '' then
        learn(name, ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]))
    end
    give_time(call)
    if not place_again(call, from) then
        wait_in_line(call, provider_of(names[from]), true)
    end
    serve(name)
    return broke and 'broke' or 'ok'
end

-- cancel id account how: 'left' (its client is gone, or wants no more) or 'late' (only if it still waits).
-- -> none | removed | running
function steps.cancel()
    local call = call_of(ARGV[2])
    if not call or call.a ~= ARGV[3] or call.s == 'end' then
        return 'none'
    end
    if call.s == 'run' then
        if ARGV[4] == 'left' then
            redis.call('HSET', call.key, 'x', 1)
            redis.call('SADD', LEFT .. call.w, call.id)
            redis.call('PUBLISH', 'ai:work:' .. call.w, 'x ' .. call.id .. ' ' .. call.t .. '\n')
        end
        return 'running'
    end
    take_out_of_line(call)
    if ARGV[4] == 'left' then
        end_here(call, 'cancelled', 'cancelled')
    else
        call.c = '' -- it is who waits that asks
        end_here(call, 'failed', 'queue_timeout')
    end
    return 'removed'
end

-- A call that its worker has not, or that has no worker: tried again unless something was delivered. `killed`: its worker died.
local function lose(worker, id, killed)
    local call = call_of(id)
    local name = redis.call('HGET', 'ai:held:' .. worker, id)
    if not name or redis.call('HDEL', 'ai:held:' .. worker, id) == 0 then
        return
    end
    -- Its place is free whatever has become of its hash.
    redis.call('HINCRBY', PROVIDER .. name, 'busy', -1)
    redis.call('ZADD', 'ai:workers', 'XX', 'INCR', '-1', worker)
    if not call or call.s ~= 'run' or call.w ~= worker then
        return
    end
    local kills = redis.call('HINCRBY', call.key, 'k', killed and 1 or 0)
    if call.x == '1' then
        end_here(call, 'cancelled', 'cancelled')
    elseif call.e == '1' or kills >= KILLS_MOST then
        end_here(call, 'failed', 'worker_lost')
    else
        give_time(call)
        if not place_again(call, tonumber(call.i)) then
            wait_in_line(call, provider_of(split(call.r)[tonumber(call.i)]), true)
        end
    end
end

local function take_over(worker)
    local ids = redis.call('HRANDFIELD', 'ai:held:' .. worker, AT_ONCE)
    for _, id in ipairs(ids) do
        lose(worker, id, true)
    end
    if #ids < AT_ONCE then
        redis.call('ZREM', 'ai:workers', worker)
        redis.call('DEL', LEFT .. worker)
    end
    return #ids
end

-- lost worker id: Redis says that the worker holds the call, and it does not.
function steps.lost()
    local name = redis.call('HGET', 'ai:held:' .. ARGV[2], ARGV[3])
    lose(ARGV[2], ARGV[3], false)
    if name then
        serve(name)
    end
    return name and 1 or 0
end

-- Calls of a worker whose clients have left, "id try" each: what was published of that may have been lost.
local function left_of(worker)
    local left = {}
    for _, id in ipairs(redis.call('SRANDMEMBER', LEFT .. worker, AT_ONCE)) do
        local v = redis.call('HMGET', CALL .. id, 's', 'w', 't')
        if v[1] == 'run' and v[2] == worker then
            left[#left + 1] = id .. ' ' .. v[3]
        else
            redis.call('SREM', LEFT .. worker, id)
        end
    end
    return left
end

-- beat worker room life_ms: the worker lives. Then what nobody else sees to. -> calls it holds, calls taken over, calls whose
-- end lies there for long, calls of its own whose clients have left
function steps.beat()
    local worker = ARGV[2]
    redis.call('SET', 'ai:worker:' .. worker, ARGV[3], 'PX', ARGV[4])
    local held = redis.call('HLEN', 'ai:held:' .. worker)
    -- One that takes nothing stands behind all others: free_worker looks at the first ones only.
    redis.call('ZADD', 'ai:workers', ARGV[3] == '0' and held + NO_ROOM or held, worker)
    local taken = 0
    for _, other in ipairs(redis.call('ZRANGE', 'ai:workers', 0, -1)) do
        if redis.call('EXISTS', 'ai:worker:' .. other) == 0 then
            taken = taken + take_over(other)
        end
    end
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'ai:waiting', '-inf', now, 'LIMIT', 0, AT_ONCE)) do
        local call = call_of(id)
        if call and call.s == 'wait' then
            take_out_of_line(call)
            end_here(call, 'failed', 'queue_timeout')
        end
        redis.call('ZREM', 'ai:waiting', id)
    end
    for _, name in ipairs(redis.call('SMEMBERS', 'ai:lines')) do
        serve(name)
    end
    return {held, taken, redis.call('ZRANGEBYSCORE', 'ai:ended', '-inf', now - 5000, 'LIMIT', 0, AT_ONCE),
        left_of(worker)}
end

-- look provider...: for operators. -> for each what waits for it, what runs, the cap, and the breaker: 0 closed, 1 probing, 2 open
function steps.look()
    local seen = {}
    for i = 2, #ARGV do
        local provider = provider_of(ARGV[i])
        local breaker = provider.open > now and 2 or provider.half and 1 or 0
        seen[#seen + 1] = {provider.queued, provider.busy, math.floor(provider.cap), breaker}
    end
    return seen
end

-- leave worker: it takes nothing more, and what it still holds is others' now.
function steps.leave()
    redis.call('DEL', 'ai:worker:' .. ARGV[2])
    while take_over(ARGV[2]) == AT_ONCE do
    end
    return 1
end

return steps[ARGV[1]]()
