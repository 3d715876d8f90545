-- Gives a lease back, if it is still this one.
local key = P .. 'lease:' .. ARGV[1]
if redis.call('GET', key) == ARGV[2] then
  redis.call('DEL', key)
end
