-- Says that a gateway is there for so many milliseconds by the server's clock; returns names and data of all that are.
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', P .. 'gateways', '-inf', now_ms)) do
  redis.call('ZREM', P .. 'gateways', gone)
  redis.call('HDEL', P .. 'gateways:data', gone)
end
redis.call('ZADD', P .. 'gateways', now_ms + tonumber(ARGV[3]), ARGV[1])
redis.call('HSET', P .. 'gateways:data', ARGV[1], ARGV[2])
return redis.call('HGETALL', P .. 'gateways:data')
