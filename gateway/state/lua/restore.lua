-- Puts documents back that a server has lost with its latest writes.
if tonumber(redis.call('GET', P .. 'revision') or '0') < tonumber(ARGV[1]) then
  redis.call('DEL', P .. 'documents')
  for place = 2, #ARGV, 2 do
    redis.call('HSET', P .. 'documents', ARGV[place], ARGV[place + 1])
  end
  redis.call('SET', P .. 'revision', ARGV[1])
end
