#!/usr/bin/env bash
# Runs the tests on servers of other kinds and versions than the machine's own.
#
#	test/servers/run.sh [-quick] [NAME... | today | here]
#
# Names are those of the table below; without any, all are run, one after the other. Each
# runs all tests of the root module, the scripts against their model, and a chaos run. With
# -quick these are the suite, the scripts, and a short chaos run: two minutes. "today" is
# another of them each day, "here" the redis-server that is found in PATH. What a server
# below 7.0 cannot have is left out, and said.
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
}

# What takes sharded channels, or the record of an append-only file of several parts:
# Redis has both from 7.0 on.
sharded='Cluster|./[Cc]luster'

quick=
if [ "${1-}" = -quick ]; then quick=1; shift; fi
all=$(echo "$servers" | awk 'NF { print $1 }')
[ $# -gt 0 ] || set -- $all
if [ "$*" = today ]; then
	# shellcheck disable=SC2086
	set -- $all
	shift $(($(date +%s) / 86400 % $#))
	set -- "$1"
fi
failed=()
for name; do
	path=$PATH
	if [ "$name" != here ]; then
		[ -n "$(line "$name")" ] || { echo "$name is none of:" $all today here >&2; exit 2; }
		# shellcheck disable=SC2046
		install $(line "$name")
		path=$cache/$name:$PATH
	fi
	on() { PATH=$path "$@" || failed+=("$name: $*"); }
	version=$(PATH=$path redis-server --version)
	echo "$version"
	if [[ $version =~ v=([0-9]+)\. ]] && [ "${BASH_REMATCH[1]}" -lt 7 ]; then
		echo "left out, as it takes 7.0: chaos, and tests called like $sharded"
		on go test -race -count 1 -timeout 30m -skip "$sharded" .
		on go -C test test -race -count 1 ./scripts
	elif [ -n "$quick" ]; then
		on go test -race -count 1 -run '^TestSuite$' .
		on go test -race -count 1 -run '^Test(DatabaseOfACluster|SuiteOfClients)$/^(cluster-database|failover-cluster|tls)$' .
		on go -C test test -race -count 1 ./scripts
		on go -C test run -race ./chaos -for 30s -seed 1 -fault '^(none|Cluster: planned failover|Sentinel: kill -9 of the master|quorum: faults of one node)$'
	else
		on go test -race -count 1 -timeout 30m .
		on go -C test test -race -count 1 ./scripts ./aof ./check
		on go -C test run -race ./chaos -for 10m -seed 1
	fi
done
if [ ${#failed[@]} -gt 0 ]; then
	printf 'FAILED on %s\n' "${failed[@]}" >&2
	exit 1
fi
