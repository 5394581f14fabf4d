#!/usr/bin/env bash
# go-redis v9.23.0, redis-server 7.0 (Debian 12): ReadOnly of a universal client means one
# thing for a cluster and another with Sentinel.
#
# UniversalOptions.ReadOnly stands among the options that are "only cluster clients'": there
# it has reads answered by replicas, and writes go to the masters. With MasterName, where it
# has no effect by that heading, it makes a client of a replica: writes go there too, and are
# refused. So a program that turns from a cluster to Sentinel by its options alone can no
# longer write; and where there is no replica, writes work, until there is one.
#
# Needs Go, and redis-server (installed by apt-get where it is missing). Prints what it
# saw, and fails if that has changed.
set -euo pipefail
command -v redis-server >/dev/null || { apt-get update && apt-get install -y redis-server; } >/dev/null
dir=$(mktemp -d)
master=$((20000 + RANDOM % 10000)) replica=$((30000 + RANDOM % 2000)) sentinel=$((10000 + RANDOM % 10000))
common=(--bind 127.0.0.1 --save '' --dir "$dir")
redis-server --port "$master" "${common[@]}" >"$dir/master.log" &
servers=$!
echo "sentinel monitor locks 127.0.0.1 $master 1" >"$dir/sentinel.conf"
trap 'kill $servers; rm -rf "$dir"' EXIT
cd "$dir"
until redis-cli -p "$master" ping >/dev/null 2>&1; do sleep 0.1; done
redis-server "$dir/sentinel.conf" --sentinel --port "$sentinel" --bind 127.0.0.1 >"$dir/sentinel.log" &
servers+=" $!"
until redis-cli -p "$sentinel" ping >/dev/null 2>&1; do sleep 0.1; done
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/redis/go-redis/v9"
)

func main() {
	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: []string{os.Args[1]}, MasterName: "locks", ReadOnly: true})
	fmt.Println(os.Args[2]+":", client.Set(context.Background(), "key", "value", 0))
}
GO
go mod init finding >/dev/null 2>&1
go get github.com/redis/go-redis/v9@v9.23.0 >/dev/null 2>&1
go build -o client . 2>/dev/null
redis-server --version
{
	./client "127.0.0.1:$sentinel" "no replica" 2>/dev/null
	redis-server --port "$replica" "${common[@]}" --replicaof 127.0.0.1 "$master" >"$dir/replica.log" &
	servers+=" $!"
	until redis-cli -p "$replica" info replication 2>/dev/null | grep -q master_link_status:up; do sleep 0.1; done
	until redis-cli -p "$sentinel" sentinel replicas locks | grep -q '^ok'; do sleep 0.3; done
	./client "127.0.0.1:$sentinel" "one replica" 2>/dev/null
} >seen
cat seen
diff seen - <<'SEEN'
no replica: set key value: OK
one replica: set key value: READONLY You can't write against a read only replica.
SEEN
