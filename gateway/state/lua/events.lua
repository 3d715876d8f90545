-- So many events with numbers below another, newest first, and how many there are with lower ones.
local newest = tonumber(redis.call('GET', P .. 'events:number') or '0')
local start = math.max(0, newest - tonumber(ARGV[1]) + 1)
return redis.call('LRANGE', P .. 'events', start, start + tonumber(ARGV[2]) - 1)
