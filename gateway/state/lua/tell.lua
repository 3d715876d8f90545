-- Adds counts, once for each id.
if redis.call('ZADD', P .. 'batches', 'NX', redis.call('INCR', P .. 'batches:number'), ARGV[1]) == 0 then
  return
end
redis.call('ZREMRANGEBYRANK', P .. 'batches', 0, -BATCHES - 1)
local requests, firsts, sums, usage, compared = unpack(cjson.decode(ARGV[2]))
for _, request in ipairs(requests) do
  local count = redis.call('INCR', P .. 'requests')
  local bucket = math.floor(count / BUCKET)
  redis.call('HSET', P .. 'requests:' .. bucket, request[1], request[2])
  if count % BUCKET == 0 then
    redis.call('DEL', P .. 'requests:' .. (bucket - BUCKETS - 1), P .. 'feedback:' .. (bucket - BUCKETS - 1))
  end
end
add_firsts(firsts)
add_sums(sums)
for _, used in ipairs(usage) do
  local key = P .. 'usage:' .. used[1]
  if redis.call('EXISTS', key) == 0 then
    redis.call('SADD', P .. 'usage-days', used[1])
  end
  for _, amount in ipairs(used[3]) do
    redis.call('HINCRBYFLOAT', key, used[2] .. '|' .. amount[1], amount[2])
  end
end
for _, comparison in ipairs(compared) do
  local key = P .. 'comparisons:' .. comparison[1]
  redis.call('LPUSH', key, comparison[2])
  redis.call('LTRIM', key, 0, ARGV[3] - 1)
end
