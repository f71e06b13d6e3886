-- The copy of an instance's row that who only looks sees (core/domain/instance/instance.c). Those who have changed the row one after the other
-- may come here in another order: an older row does not go over a newer one.
-- KEYS: the copy. ARGV: the row, whose second line is its version; milliseconds for which it is good.
local function version_of(row)
    return tonumber(string.match(row, '^%d+\n(%d+)\n') or 0)
end

local had = redis.call('GET', KEYS[1])
if had and version_of(had) > version_of(ARGV[1]) then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
