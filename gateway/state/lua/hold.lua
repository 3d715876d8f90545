-- Takes or keeps a lease; the value is owner and token. Returns the token, 0 while somebody else has it.
local key, owner, ttl_ms = P .. 'lease:' .. ARGV[1], ARGV[2], ARGV[3]
local known = redis.call('GET', key)
if known then
  local token = string.match(known, '^(%d+)|')
  if string.sub(known, #token + 2) ~= owner then
    return 0
  end
  redis.call('PEXPIRE', key, ttl_ms)
  return tonumber(token)
end
local token = redis.call('INCR', P .. 'lease-tokens')
redis.call('SET', key, token .. '|' .. owner, 'PX', ttl_ms)
return token
