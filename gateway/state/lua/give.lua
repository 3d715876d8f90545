-- Keeps one judgement of a request by a metric: 1, or 0 if there is one already that is another's.
local id, request, metric, value = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local key = P .. 'feedback:' .. find_bucket(request)
local field = metric .. '|' .. request
local known = redis.call('HGET', key, field)
if known then
  return string.match(known, '|(.*)$') == id and 1 or 0
end
redis.call('HSET', key, field, value .. '|' .. id)
local firsts, sums = unpack(cjson.decode(ARGV[5]))
add_firsts(firsts)
add_sums(sums)
return 1
