-- What the scripts share. KEYS[1] is the prefix of all keys, in braces, so that a cluster keeps them on one node.
local P = KEYS[1]
local UNITS = 2000000     -- of one group in one stage; further users are not counted as such
local STAGE_S = 90 * 86400
local BUCKET = 20000      -- requests that are remembered and forgotten together
local BUCKETS = 50
local SEEN_S = 14 * 86400 -- after the last new user of a group in a stage
local BATCHES = 100000    -- whose ids are known, so that they count once
-- A revision is a count with a mark below it, drawn for each commit: if a server that has lost its last writes comes to
-- the same count again, gateways that know the lost ones see that it is another revision.
local MARKS = 1048576

local function add_sample(stage, field, count, total, squares, buckets)
  local key = P .. 'samples:' .. stage
  redis.call('HINCRBY', key, field .. '|n', count)
  redis.call('HINCRBYFLOAT', key, field .. '|t', total)
  redis.call('HINCRBYFLOAT', key, field .. '|s', squares)
  for _, pair in ipairs(buckets) do
    redis.call('HINCRBY', key, field .. '|b|' .. pair[1], pair[2])
  end
  redis.call('EXPIRE', key, STAGE_S)
end

local function add_sums(sums)
  for _, sum in ipairs(sums) do
    add_sample(unpack(sum))
  end
end

local function add_firsts(firsts)
  for _, first in ipairs(firsts) do
    local stage, group, unit, values = unpack(first)
    local seen = P .. 'seen:' .. stage .. ':' .. group
    if redis.call('SCARD', seen) < UNITS and redis.call('SADD', seen, unit) == 1 then
      redis.call('EXPIRE', seen, SEEN_S)
      add_sums(values)
    end
  end
end

local function find_bucket(request)
  local newest = math.floor(tonumber(redis.call('GET', P .. 'requests') or '0') / BUCKET)
  for bucket = newest, math.max(0, newest - BUCKETS), -1 do
    local entry = redis.call('HGET', P .. 'requests:' .. bucket, request)
    if entry then
      return bucket, entry
    end
  end
  return newest, false
end
