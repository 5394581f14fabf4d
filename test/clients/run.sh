#!/usr/bin/env bash
# Runs the suite with all kinds of clients, on several versions of go-redis.
#
#	test/clients/run.sh [-share i/n] [VERSION...]
#
# A version is such as v9.23.0; without any, these are the lowest that the suite passes
# with, the one of go.mod, and the newest that there is. With -share 2/7 it is every
# seventh kind, from the second on. Nothing of the repository is changed: each version
# has a go.mod of its own, in a temporary folder. It says of each kind how many tests
# passed, and in what time.
set -euo pipefail
cd "$(dirname "$0")/../.."
lowest=v9.19.0
jobs=3 # processes; they wait more than they work

share=1/1
if [ "${1-}" = -share ]; then share=$2; shift 2; fi
first=${share%/*} step=${share#*/}
if [ $# -eq 0 ]; then
	# shellcheck disable=SC2046
	set -- $(printf '%s\n' "$lowest" "$(go list -m -f '{{.Version}}' github.com/redis/go-redis/v9)" \
		"$(go list -m -f '{{.Version}}' github.com/redis/go-redis/v9@latest)" | sort -uV)
fi
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
failed=()
for version; do
	dir=$temp/$version
	mkdir "$dir"
	cp go.mod go.sum "$dir"
	go get -modfile="$dir/go.mod" "github.com/redis/go-redis/v9@$version" 2>/dev/null
	go test -modfile="$dir/go.mod" -race -c -o "$dir/suite.test" .
	echo "go-redis $(go list -modfile="$dir/go.mod" -m -f '{{.Version}}' github.com/redis/go-redis/v9), $(redis-server --version)"
	processes=()
	for ((job = 0; job < jobs; job++)); do
		# Every step-th kind, and of these every jobs-th.
		REDISLOCK_TEST_CLIENTS=$((first + step * job))/$((step * jobs)) \
			"$dir/suite.test" -test.v -test.timeout 20m -test.run '^TestSuiteOfClients$' >"$dir/$job" 2>&1 &
		processes+=($!)
	done
	for job in "${!processes[@]}"; do
		wait "${processes[job]}" || { cat "$dir/$job"; failed+=("$version"); }
		awk '/^        --- PASS/ { passed++ }
			/^    --- / { if (kind != "") print_kind(); kind = $3; took = $4; passed = 0 }
			END { if (kind != "") print_kind() }
			function print_kind() { sub(/.*\//, "", kind); printf "%-36s %3d tests passed %s\n", kind, passed, took }' "$dir/$job"
	done
done
if [ ${#failed[@]} -gt 0 ]; then
	echo "FAILED with ${failed[*]}" >&2
	exit 1
fi
