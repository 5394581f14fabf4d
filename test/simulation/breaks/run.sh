#!/usr/bin/env bash
# Breaks a copy of the library in the ways of the patches here, one at a time,
# and tells after how many seeds the simulation finds out.
# usage: test/simulation/breaks/run.sh [patch ...]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
seeds=${SEEDS:-3000}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
[ $# -gt 0 ] || set -- "$here"/*.patch
for patch in "$@"; do
	rm -rf "$copy"/*
	(cd "$top" && cp -r ./*.go go.mod go.sum lua internal "$copy" && mkdir "$copy/test" && cp -r test/go.mod test/go.sum test/simulation "$copy/test")
	printf '%-36s ' "$(basename "$patch" .patch)"
	(cd "$copy" && patch -s -p1 <"$patch") || { echo "does not apply"; continue; }
	(cd "$copy/test" && go test -c -o "$copy/simulation.test" ./simulation) || { echo "does not compile"; continue; }
	# A library that hangs is found by the clock.
	out=$(timeout 600 "$copy/simulation.test" -test.v -test.run 'TestSeeds$' -seeds "$seeds" -limit 1 2>&1 || true)
	runs=$(sed -n 's/.*: \([0-9]*\) runs, 1 failed.*/\1/p' <<<"$out")
	[ -n "$runs" ] || runs=$(sed -n 's/^replay: .*-seed \([0-9]*\).*/\1/p' <<<"$out")
	what=$(grep -m1 -o 'VIOLATION.*' <<<"$out" || true)
	echo "${runs:-not in $seeds}  ${what#VIOLATION }"
done
