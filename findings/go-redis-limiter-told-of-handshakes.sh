#!/usr/bin/env bash
# go-redis v9.23.0, redis-server 7.0 (Debian 12): a Limiter is asked, and told of failures,
# more often than commands are called.
#
# A Limiter is "a rate limiter or a circuit breaker": it is asked before each operation, and
# told how it went. The commands that go-redis itself sends over each new connection pass
# it too, one by one. So a single GET that finds its key takes several permissions from a
# rate limiter; and, as Redis 7.0 does not know what some of these commands ask for, a circuit
# breaker is told of failures although nothing has failed for anybody.
#
# Needs Go, and redis-server (installed by apt-get where it is missing). Prints what it
# saw, and fails if that has changed.
set -euo pipefail
command -v redis-server >/dev/null || { apt-get update && apt-get install -y redis-server; } >/dev/null
dir=$(mktemp -d)
port=$((20000 + RANDOM % 20000))
redis-server --port "$port" --bind 127.0.0.1 --save '' --dir "$dir" >"$dir/log" &
server=$!
trap 'kill "$server"; rm -rf "$dir"' EXIT
cd "$dir"
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/redis/go-redis/v9"
)

type counting struct{ asked, failures int }

func (c *counting) Allow() error { c.asked++; return nil }

func (c *counting) ReportResult(err error) {
	if err != nil {
		c.failures++
		fmt.Println("told:", err)
	}
}

func main() {
	ctx := context.Background()
	limiter := new(counting)
	client := redis.NewClient(&redis.Options{Addr: os.Args[1], Limiter: limiter})
	for range 2 {
		*limiter = counting{}
		value, err := client.Get(ctx, "key").Result()
		fmt.Printf("GET: %q, %v; asked %d times, told of %d failures\n", value, err, limiter.asked, limiter.failures)
	}
}
GO
go mod init finding >/dev/null 2>&1
go get github.com/redis/go-redis/v9@v9.23.0 >/dev/null 2>&1
until redis-cli -p "$port" set key value >/dev/null 2>&1; do sleep 0.1; done
redis-server --version
go run . "127.0.0.1:$port" 2>/dev/null | tee seen
diff seen - <<'SEEN'
told: ERR unknown subcommand 'maint_notifications'. Try CLIENT HELP.
told: ERR unknown subcommand 'setinfo'. Try CLIENT HELP.
GET: "value", <nil>; asked 4 times, told of 2 failures
GET: "value", <nil>; asked 1 times, told of 0 failures
SEEN
