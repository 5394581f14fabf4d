#!/usr/bin/env bash
# redis-server 7.0 (Debian 12): CONFIG GET notify-keyspace-events does not show all flags
# that are on.
#
# "n", events of new keys, came with Redis 7.0. It is not part of "A" (all), but is left
# out of what CONFIG GET shows as soon as "A" is there. So whoever reads the flags, adds
# one that is missing, and writes them back, as libraries do that need events, switches
# "n" off, and nothing says so.
#
# Needs redis-server and redis-cli (installed by apt-get where they are missing). Prints
# what it saw, and fails if that has changed.
set -euo pipefail
command -v redis-server >/dev/null || { apt-get update && apt-get install -y redis-server; } >/dev/null
dir=$(mktemp -d)
port=$((20000 + RANDOM % 20000))
redis-server --port "$port" --bind 127.0.0.1 --save '' --dir "$dir" >"$dir/log" &
server=$!
trap 'kill "$server"; rm -rf "$dir"' EXIT
redis() { redis-cli -p "$port" "$@"; }
until redis ping >/dev/null 2>&1; do sleep 0.1; done
redis-server --version

# heard NAME: whether the creation of a key is announced as "new"
heard() {
	redis --csv psubscribe '__keyevent@0__:new' >"$dir/$1" &
	local listener=$!
	until grep -q psubscribe "$dir/$1" 2>/dev/null; do sleep 0.1; done
	redis set "$1" value >/dev/null
	redis publish '__keyevent@0__:new' end >/dev/null
	until grep -q '"end"' "$dir/$1"; do sleep 0.1; done
	kill "$listener"
	if grep -q "\"$1\"" "$dir/$1"; then echo "$1: heard"; else echo "$1: not heard"; fi
}

{
	redis config set notify-keyspace-events AEn
	echo "set AEn, read: $(redis config get notify-keyspace-events | tail -1)"
	heard before
	redis config set notify-keyspace-events "$(redis config get notify-keyspace-events | tail -1)"
	echo "written back, read: $(redis config get notify-keyspace-events | tail -1)"
	heard after
} | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
OK
set AEn, read: AE
before: heard
OK
written back, read: AE
after: not heard
SEEN
