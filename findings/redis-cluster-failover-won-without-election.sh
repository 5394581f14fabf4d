#!/usr/bin/env bash
# redis-server 7.0 (Debian 12), Redis Cluster: a replica that is told CLUSTER FAILOVER soon
# after it has won an election wins again without one, and loses at once.
#
# Two nodes change places, to and fro, and to again: the third CLUSTER FAILOVER comes to
# the node that has won the first. Its election of then still counts, for four times
# cluster-node-timeout (a minute by default). So it asks nobody, says that it has won,
# and takes the slots in the epoch of that election. That is older than the other node's,
# so it is told to be a replica again. For a moment there were two masters; and CLUSTER
# FAILOVER has answered OK.
#
# Needs redis-server and redis-cli (installed by apt-get where they are missing). Prints
# what it saw, and fails if that has changed.
set -euo pipefail
command -v redis-server >/dev/null || { apt-get update && apt-get install -y redis-server; } >/dev/null
dir=$(mktemp -d)
port=$((10000 + RANDOM % 10000)) # the bus has 10000 more
pids=()
trap 'kill "${pids[@]}"; rm -rf "$dir"' EXIT
for i in 0 1 2 3 4 5; do
	mkdir "$dir/$i"
	redis-server --port $((port + i)) --bind 127.0.0.1 --save '' --dir "$dir/$i" --cluster-enabled yes \
		--cluster-node-timeout 5000 --repl-diskless-sync-delay 0 >"$dir/$i/log" &
	pids+=($!)
	until redis-cli -p $((port + i)) ping >/dev/null 2>&1; do sleep 0.1; done
done
redis-server --version
redis-cli --cluster create $(for i in 0 1 2 3 4 5; do echo 127.0.0.1:$((port + i)); done) --cluster-replicas 1 --cluster-yes >/dev/null
role() { redis-cli -p $((port + $1)) role | head -1; }
until_role() { for _ in $(seq 200); do [ "$(role "$1")" = "$2" ] && return; sleep 0.1; done; echo "not within 20 s: node $1 is $2"; exit 1; }
in_step() { for _ in $(seq 200); do redis-cli -p $((port + $1)) info replication | grep -q master_link_status:up && return; sleep 0.1; done; exit 1; }
# Of the six, a master and its replica.
first=0
for i in 3 4 5; do
	if redis-cli -p $((port + i)) info replication | grep -q "master_port:$port"; then second=$i; fi
done
in_step "$second"
sleep 2 # a node that has just started does not ask for votes
for pair in "$second $first" "$first $second" "$second $first"; do
	read -r heir old <<<"$pair"
	echo "CLUSTER FAILOVER to node $heir: $(redis-cli -p $((port + heir)) cluster failover)"
	if [ "${done:=0}" -lt 2 ]; then
		until_role "$heir" master
		until_role "$old" slave
		in_step "$old"
		sleep 2 # the others hear of it
		done=$((done + 1))
	fi
done
sleep 3
began=$(grep -c 'Starting a failover election' "$dir/$second/log")
won=$(grep -c 'Failover election won' "$dir/$second/log")
echo "3 s later node $second is a $(role "$second"); it has begun elections: $began, and says it has won: $won"
[ "$(role "$second")" = slave ] && [ "$began" = 1 ] && [ "$won" = 2 ]
