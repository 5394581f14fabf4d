#!/usr/bin/env bash
# redis-server 7.0 (Debian 12): PUBLISH answers 0, and the message is heard.
#
# PUBLISH is replicated, and a replica hands it to its own subscribers. The number that
# the master answers counts none of these, be it called by itself or in a script. So 0
# does not say that nobody has got the message: after a failover that a subscriber has
# not noticed, as behind one address, its server is a replica of the new master, answers
# every PING, and delivers. PUBSUB NUMSUB counts in the same way, and sends nothing.
#
# Needs redis-server and redis-cli (installed by apt-get where they are missing). Prints
# what it saw, and fails if that has changed.
set -euo pipefail
command -v redis-server >/dev/null || { apt-get update && apt-get install -y redis-server; } >/dev/null
dir=$(mktemp -d)
port=$((20000 + RANDOM % 20000))
mkdir "$dir/master" "$dir/replica"
common=(--bind 127.0.0.1 --save '' --repl-diskless-sync-delay 0)
redis-server "${common[@]}" --port "$port" --dir "$dir/master" >"$dir/master/log" &
servers=$!
redis-server "${common[@]}" --port $((port + 1)) --dir "$dir/replica" --replicaof "127.0.0.1 $port" >"$dir/replica/log" &
servers="$servers $!"
trap 'kill $servers; rm -rf "$dir"' EXIT
master() { redis-cli -p "$port" "$@"; }
replica() { redis-cli -p $((port + 1)) "$@"; }
until replica info replication 2>/dev/null | grep -q master_link_status:up; do sleep 0.1; done
redis-server --version

replica --csv subscribe channel >"$dir/heard" &
servers="$servers $!"
until grep -q subscribe "$dir/heard" 2>/dev/null; do sleep 0.1; done
{
	echo "NUMSUB at the master: $(master pubsub numsub channel | tail -1)"
	echo "PUBLISH: $(master publish channel one)"
	echo "PUBLISH in a script: $(master eval "return redis.call('PUBLISH', 'channel', 'two')" 0)"
	for _ in $(seq 100); do
		grep -q two "$dir/heard" && break
		sleep 0.1
	done
	grep -o '"message".*' "$dir/heard"
} | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
NUMSUB at the master: 0
PUBLISH: 0
PUBLISH in a script: 0
"message","channel","one"
"message","channel","two"
SEEN
