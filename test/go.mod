module github.com/redislock/redislock/test

go 1.26.0

replace github.com/redislock/redislock => ../

require golang.org/x/sys v0.49.0
