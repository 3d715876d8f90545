-- Puts documents back that a server has lost with its latest writes.
if math.floor(tonumber(redis.call('GET', P .. 'revision') or '0') / MARKS) < math.floor(tonumber(ARGV[1]) / MARKS) then
  redis.call('DEL', P .. 'documents')
  for place = 2, #ARGV, 2 do
    redis.call('HSET', P .. 'documents', ARGV[place], ARGV[place + 1])
  end
  redis.call('SET', P .. 'revision', ARGV[1])
end
