-- Drops the comparisons of a model. A script, so that a server which has lost its latest writes is told this again too.
redis.call('DEL', P .. 'comparisons:' .. ARGV[1])
