-- What is remembered of requests; an empty string where it is nothing.
local found = {}
for place, request in ipairs(ARGV) do
  local _, entry = find_bucket(request)
  found[place] = entry or ''
end
return found
