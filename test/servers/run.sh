#!/usr/bin/env bash
# Runs the tests on servers of other kinds and versions than the machine's own.
#
#	test/servers/run.sh [-quick] [NAME...]
#
# Names are those of the table below; without any, all are run, one after the other. Each
# runs all tests of the root module, the scripts against their model, and a chaos run. With
# -quick these are the suite, the scripts, and a short chaos run: two minutes.
#
# What is missing is unpacked into SERVERS (default: redislock-servers in the user's cache):
# the server and its libraries, from Debian's later suites, to be run by their own dynamic
# linker. Nothing of the machine's own is changed. That takes apt-get, of Debian.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/redislock-servers}

# name, suite, package, program
servers='
redict7 forky  redict-tools redict-check-rdb
redis8  forky  redis-tools  redis-check-rdb
valkey8 trixie valkey-tools valkey-check-rdb
valkey9 forky  valkey-tools valkey-check-rdb
'

line() { echo "$servers" | awk -v name="$1" '$1 == name'; }

install() {
	local name=$1 suite=$2 package=$3 program=$4 root=$cache/$2
	if ! [ -e "$root/usr/bin/$program" ]; then
		command -v apt-get >/dev/null || { echo "to install $name takes apt-get, of Debian" >&2; return 1; }
		mkdir -p "$root"/apt/{state/lists/partial,cache/archives/partial}
		echo "deb http://deb.debian.org/debian $suite main" >"$root/apt/sources.list"
		apt() {
			apt-get -qq -o Dir::State="$root/apt/state" -o Dir::State::status=/dev/null -o Dir::Cache="$root/apt/cache" \
				-o Dir::Etc::sourcelist="$root/apt/sources.list" -o Dir::Etc::sourceparts=- -o APT::Sandbox::User= "$@"
		}
		apt update
		apt install --download-only --no-install-recommends -y "$package" >/dev/null
		for package in "$root"/apt/cache/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
	fi
	mkdir -p "$cache/$name"
	# One program is server and checker, by the name that it is called by.
	cat >"$cache/$name/redis-server" <<-SERVER
		#!/usr/bin/env bash
		exec "$root/usr/lib64/ld-linux-x86-64.so.2" --argv0 redis-server \\
			--library-path "$root/usr/lib/x86_64-linux-gnu" "$root/usr/bin/$program" "\$@"
	SERVER
	chmod +x "$cache/$name/redis-server"
	"$cache/$name/redis-server" --version
}

quick=
if [ "${1-}" = -quick ]; then quick=1; shift; fi
[ $# -gt 0 ] || set -- $(echo "$servers" | awk '{ print $1 }')
failed=()
for name; do
	[ -n "$(line "$name")" ] || { echo "$name is none of: $(echo "$servers" | awk '{ print $1 }' | paste -sd' ')" >&2; exit 2; }
	# shellcheck disable=SC2046
	install $(line "$name")
	on() { PATH=$cache/$name:$PATH "$@" || failed+=("$name: $*"); }
	if [ -n "$quick" ]; then
		on go test -race -count 1 -run '^TestSuite$' .
		on go test -race -count 1 -run '^Test(DatabaseOfACluster|SuiteOfClients)$/^(cluster-database|failover-cluster|tls)$' .
		on go -C test test -race -count 1 ./scripts
		on go -C test run -race ./chaos -for 30s -seed 1 -fault '^(none|Cluster: planned failover|Sentinel: kill.*|quorum: faults of one node)$'
	else
		on go test -race -count 1 -timeout 30m .
		on go -C test test -race -count 1 ./scripts ./aof ./check
		on go -C test run -race ./chaos -for 12m -seed 1
	fi
done
if [ ${#failed[@]} -gt 0 ]; then
	printf 'FAILED on %s\n' "${failed[@]}" >&2
	exit 1
fi
