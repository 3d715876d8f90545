-- Writes documents and events, if nobody else has meanwhile. Returns the new revision, -1: stale, -2: lease lost.
local expected, id, mark, lease, holder, kept, events = unpack(ARGV, 1, 7)
local revision = tonumber(redis.call('GET', P .. 'revision') or '0')
if redis.call('GET', P .. 'committed') == id then
  return revision -- this very commit, whose answer was lost
end
if lease ~= '' and redis.call('GET', P .. 'lease:' .. lease) ~= holder then
  return -2
end
if revision ~= tonumber(expected) then
  return -1
end
redis.call('SET', P .. 'committed', id) -- the first to write: a server without memory refuses it, and so the whole
local behind = 7 + tonumber(events)
for place = 8, behind do
  redis.call('LPUSH', P .. 'events', redis.call('INCR', P .. 'events:number') .. '|' .. ARGV[place])
end
redis.call('LTRIM', P .. 'events', 0, tonumber(kept) - 1)
for place = behind + 1, #ARGV, 3 do
  if ARGV[place + 1] == 'write' then
    redis.call('HSET', P .. 'documents', ARGV[place], ARGV[place + 2])
  else
    redis.call('HDEL', P .. 'documents', ARGV[place])
  end
end
revision = (math.floor(revision / MARKS) + 1) * MARKS + tonumber(mark)
redis.call('SET', P .. 'revision', string.format('%.0f', revision)) -- Lua writes 14 digits by itself
return revision
