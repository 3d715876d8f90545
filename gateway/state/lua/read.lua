-- The revision, and the documents unless it is the one that is known.
local revision = tonumber(redis.call('GET', P .. 'revision') or '0')
if revision == tonumber(ARGV[1]) then
  return {revision}
end
return {revision, redis.call('HGETALL', P .. 'documents')}
