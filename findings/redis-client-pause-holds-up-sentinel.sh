#!/usr/bin/env bash
# redis-server and redis-sentinel 7.0 (Debian 12): CLIENT PAUSE ... WRITE stops more than
# the clients.
#
# An operator who wants to lose nothing pauses the writes of the master, waits until the
# replica has got all, and has Sentinel promote that. Two things come of it:
#
#  1. The master stays a master, beside the new one, until the pause ends. Sentinel
#     publishes a greeting on every server; the pause holds that up, as PUBLISH counts as
#     a write, and what Sentinel sends after it over the same connection, REPLICAOF
#     among it, waits behind. Sentinel then takes the server for dead.
#  2. A server that has been made a replica by hand before the pause is over takes in nothing of
#     what its new master writes: the link is up, and the pause holds up the replication stream, too.
#
# The way out: REPLICAOF by hand on the paused server, then CLIENT UNPAUSE at once.
#
# Needs redis-server and redis-sentinel (installed by apt-get where they are missing).
# Prints what it saw, and fails if that has changed.
set -euo pipefail
command -v redis-server >/dev/null && command -v redis-sentinel >/dev/null || { apt-get update && apt-get install -y redis-server redis-sentinel; } >/dev/null
dir=$(mktemp -d)
port=$((20000 + RANDOM % 20000))
pids=()
trap 'kill "${pids[@]}"; rm -rf "$dir"' EXIT
redis() { redis-cli -p "$@"; }
role() { redis "$1" role | head -1; }
until_is() { for _ in $(seq 200); do [ "$(eval "$1")" = "$2" ] && return; sleep 0.1; done; echo "not within 20 s: $1 is $2"; exit 1; }
for i in 0 1; do
	mkdir "$dir/$i"
	redis-server --port $((port + i)) --bind 127.0.0.1 --save '' --dir "$dir/$i" --repl-diskless-sync-delay 0 >"$dir/$i/log" &
	pids+=($!)
	until redis $((port + i)) ping >/dev/null 2>&1; do sleep 0.1; done
done
redis-server --version
a=$port b=$((port + 1)) s=$((port + 2))
redis $b replicaof 127.0.0.1 $a >/dev/null
until_is "redis $b info replication | grep -c master_link_status:up" 1
cat >"$dir/sentinel.conf" <<CONF
port $s
bind 127.0.0.1
sentinel monitor locks 127.0.0.1 $a 1
sentinel down-after-milliseconds locks 2000
CONF
redis-sentinel "$dir/sentinel.conf" >"$dir/log" &
pids+=($!)
until_is "redis $s sentinel replicas locks 2>/dev/null | grep -c -x slave" 1

redis $a client pause 12000 write >/dev/null
redis $s sentinel failover locks >/dev/null
until_is "role $b" master
until_is "redis $s sentinel get-master-addr-by-name locks | tail -1" $b
sleep 4 # Sentinel would have made it a replica twice
paused=$(role $a)
echo "4 s after the promotion, paused: $paused"
redis $a client unpause >/dev/null
until_is "role $a" slave
until_is "redis $a info replication | grep -c master_link_status:up" 1
echo "after CLIENT UNPAUSE: $(role $a)"

redis $a client pause 4000 write >/dev/null
redis $b set key value >/dev/null
sleep 2
link=$(redis $a info replication | tr -d '\r' | grep master_link_status)
during=$(redis $a get key)
echo "a write of the master, 2 s later on a paused replica: '$during', $link"
until_is "redis $a get key" value
echo "after the pause: '$(redis $a get key)'"
[ "$paused" = master ] && [ "$during" = '' ] && [ "$link" = master_link_status:up ]
