#!/usr/bin/env bash
# go-redis v9.23.0, redis-server 7.0 (Debian 12): what a pipeline's commands say when
# the connection could not be set up.
#
# The client has a password that is no longer right, as after a rotation. The error of
# the set-up comes back from Exec alone. Each command of the pipeline says that all is
# well: Err is nil, and its value is the zero value. A program that looks at its commands
# and not at Exec takes a GET that was never sent for an empty string, and an INCR for 0.
# By a single command, without a pipeline, the same error is the command's own.
#
# Needs Go, and redis-server (installed by apt-get where it is missing). Prints what it
# saw, and fails if that has changed.
set -euo pipefail
command -v redis-server >/dev/null || { apt-get update && apt-get install -y redis-server; } >/dev/null
dir=$(mktemp -d)
port=$((20000 + RANDOM % 20000))
redis-server --port "$port" --bind 127.0.0.1 --save '' --dir "$dir" --requirepass new >"$dir/log" &
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

func main() {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: os.Args[1], Password: "old", MaxRetries: -1})
	pipe := client.Pipeline()
	get, incr := pipe.Get(ctx, "key"), pipe.Incr(ctx, "counter")
	_, err := pipe.Exec(ctx)
	fmt.Println("Exec:", err)
	fmt.Printf("GET: %q, %v\n", get.Val(), get.Err())
	fmt.Printf("INCR: %d, %v\n", incr.Val(), incr.Err())
	fmt.Println("alone:", client.Incr(ctx, "counter").Err())
}
GO
go mod init finding >/dev/null 2>&1
go get github.com/redis/go-redis/v9@v9.23.0 >/dev/null 2>&1
until redis-cli -p "$port" -a new ping >/dev/null 2>&1; do sleep 0.1; done
redis-server --version
go run . "127.0.0.1:$port" 2>/dev/null | tee seen
diff seen - <<'SEEN'
Exec: WRONGPASS invalid username-password pair or user is disabled.
GET: "", <nil>
INCR: 0, <nil>
alone: WRONGPASS invalid username-password pair or user is disabled.
SEEN
