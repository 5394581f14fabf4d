#!/bin/bash
# verify.sh small        what CI runs: seconds
# verify.sh full [doc]   all configurations: minutes; doc: writes the table into docs/model.md
#
# ONLY=lock, ONLY=failover or ONLY=quorum: one of the three models
#
# Checks the models in lock.pml, failover.pml and quorum.pml with Spin: each configuration has to
# hold, searched to the end, and each deliberate break has to be found. Anything else
# is a failure.
set -u -o pipefail

here=$(cd "$(dirname "$0")" && pwd)
size=${1:-}
case $size in small | full) ;; *)
	sed -n '2,3s/^# //p' "$0" >&2
	exit 2 ;;
esac

missing=
command -v spin >/dev/null || missing="$missing spin"
command -v gcc >/dev/null || missing="$missing gcc libc6-dev"
if [ -n "$missing" ]; then
	echo "missing; on Debian and Ubuntu: apt-get install$missing" >&2
	exit 2
fi

work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
rows=$work/rows
: >"$rows"
failures=0
seconds=${SECONDS_EACH:-900} # for one search
memory=${MEMORY_MB:-6000}

# search NAME safety|liveness OPTIONS: builds and runs; leaves $work/NAME.out
search() {
	local name=$1 kind=$2
	shift 2
	local dir=$work/$name flags=-DSAFETY run= optimise=-O1
	[ "$size" = small ] && optimise=-O0
	mkdir "$dir" && cd "$dir" || exit 2
	[ "$kind" = liveness ] && flags="-DNFAIR=6" run="-a -f" && set -- "$@" -DLIVE
	spin -a "$@" "$model" >spin.log 2>&1 || { cat spin.log; return 1; }
	gcc $optimise -w $flags -DCOLLAPSE -DJOINPROCS -DMEMLIM="$memory" -o pan pan.c || return 1
	timeout "$seconds" ./pan -m1000000 $run >"$work/$name.out" 2>&1
	echo "exit $?" >>"$work/$name.out"
	cd "$work" && rm -rf "$dir"
}

# number PATTERN FILE: the first number in the line
number() { grep -aE "$1" "$2" | head -1 | grep -oE '[0-9]+([.][0-9e+]+)?' | head -1; }

row() { # name, options, kind, found
	local out=$work/$1.out depth states mem time
	states=$(number 'states, stored' "$out")
	depth=$(grep -aoE 'depth reached [0-9]+' "$out" | grep -oE '[0-9]+')
	mem=$(number 'total actual memory' "$out")
	time=$(grep -aoE 'elapsed time [0-9.e+]+' "$out" | grep -oE '[0-9.e+]+$')
	# Of options given twice the last counts.
	printf '| %s | %s | `%s` | %s | %s | %.0f | %.1f | %s |\n' \
		"$1" "$3" "${2//-D/}" "${states:-?}" "${depth:-?}" "${mem:-0}" "${time:-0}" "$4" | tee -a "$rows"
}

# holds NAME KIND OPTIONS
holds() {
	local name=$1 kind=$2 result=holds
	shift 2
	search "$name" "$kind" "$@"
	local out=$work/$name.out
	if grep -aqE 'max search depth too small|out of memory|Search not completed|reached -DMEMLIM' "$out" ||
		! grep -aq '^exit 0$' "$out" || ! grep -aq 'errors: 0' "$out"; then
		result=FAILED
		failures=$((failures + 1))
	fi
	row "$name" "$*" "$kind" "$result"
	if [ $result = FAILED ]; then grep -aE '^pan|^exit|^error|Warning' "$out" | sed 's/^/    /'; fi
}

# breaks NAME KIND EXPECTED OPTIONS: EXPECTED is what Spin has to say
breaks() {
	local name=$1 kind=$2 expected=$3 result
	shift 3
	search "$name" "$kind" "$@"
	local out=$work/$name.out
	if grep -a '^pan:1:' "$out" | grep -qF "$expected"; then
		result="found"
	else
		result=MISSED
		failures=$((failures + 1))
	fi
	row "$name" "$*" "$kind" "$result"
	if [ "$result" = MISSED ]; then grep -aE '^pan|^exit|^error|Warning' "$out" | sed 's/^/    /'; fi
}

# What the assertions of the model look like in Spin's reports.
g1='(st[q]==2)&&(valid[q]>0)'
g2='rank[q]>rank'
g4='disturbed||dead'
g5='acceptance cycle'
g8='assertion violated (key==(i+1))'
g9='(st[q]!=5)||'
g10='tok[q]<stok'

two="-DN=2 -DTTL=1 -DLATE=0 -DLOSSES=0 -DCANCELS=0 -DSUBSCRIBED"
three="-DN=3 -DTTL=1 -DLATE=0 -DLOSSES=0 -DCANCELS=0 -DSUBSCRIBED"

echo '| name | search | options | states | depth | MB | s | result |'
echo '|---|---|---|---|---|---|---|---|'

small() {
	holds line safety $two -DCANCELS=2 -DLOSSES=1
	holds death safety $two -DCANCELS=1 -DCRASHES=1
	holds wakeup liveness $two -DNOGRANTS -DCANCELS=1
}

full() {
	# The line: order, cancels that cross grants, lost requests and replies.
	holds two-managers safety $three -DSAME -DCANCELS=3
	holds two-managers-lost-replies safety $three -DSAME -DLOSSES=1 -DTICKS=2
	holds two-managers-silent safety $three -DSAME -DLOSSES=1 -DNOGRANTS
	holds three-managers safety $three -DCANCELS=1
	holds late-grants safety $two -DTTL=2 -DLATE=1 -DCANCELS=2
	holds early-looks safety $two -DTTL=2 -DEARLYLOOKS -DCANCELS=2 -DLOSSES=2
	holds late-requests safety $two -DTTL=2 -DGHOSTS=1 -DCANCELS=2
	holds foreigner safety $two -DTTL=2 -DFOREIGN -DCANCELS=2 -DLOSSES=1
	# Renewals, which cross releases and losses.
	holds renewal safety $two -DTTL=2 -DRENEW -DLOSSES=1 -DCANCELS=1
	# Processes and connections that die, and a Redis that forgets.
	holds death-of-a-process safety $three -DSAME -DCRASHES=1
	holds subscription-begins safety -DN=2 -DTTL=1 -DLATE=0 -DLOSSES=1 -DCANCELS=2
	holds subscription-cut safety -DN=2 -DTTL=1 -DLATE=0 -DLOSSES=0 -DCANCELS=2 -DCUTS=1
	holds subscription-cut-twice safety $two -DCUTS=2 -DCANCELS=1 -DCRASHES=1
	holds queue-lost safety $three -DSAME -DQUEUELOSS=1
	holds all-lost safety $two -DFLUSHES=1 -DCANCELS=2 -DLOSSES=1
	holds tokens safety $two -DTOKENS -DTICKS=2 -DLOSSES=1 -DFLUSHES=1
	holds tokens-flush-before-the-set safety $two -DTOKENS -DTICKS=2 -DLOSSES=1 -DFLUSHES=1 -DOTHERKEY -DBETWEEN=1
	# Every waiter is answered, with weak fairness.
	holds no-grant-arrives liveness $three -DSAME -DNOGRANTS
	holds wakeup-lost-replies liveness $two -DLOSSES=1 -DCANCELS=1
	holds wakeup-begins liveness -DN=2 -DTTL=1 -DLATE=0 -DLOSSES=0 -DCANCELS=1
	holds wakeup-cut liveness $two -DCUTS=1
	holds wakeup-death liveness $two -DCRASHES=1 -DFOREIGN -DNOGRANTS
	holds wakeup-queue-lost liveness $two -DQUEUELOSS=1
	holds wakeup-all-lost liveness $two -DFLUSHES=1
}

deliberate() {
	breaks release-without-owner-check safety "$g8" $two -DBREAK_NOOWNER
	breaks cancel-drops-the-grant safety "$g9" $two -DCANCELS=1 -DBREAK_DROPGRANT
	breaks dead-head-is-not-skipped liveness "$g5" $two -DFOREIGN -DCRASHES=1 -DNOGRANTS -DBREAK_DEADHEAD
	breaks no-timer liveness "$g5" $two -DNOGRANTS -DBREAK_NOTIMER
	breaks extend-recreates safety "$g9" $two -DTTL=2 -DRENEW -DBREAK_RECREATE
	breaks validity-from-the-reply safety "$g1" $two -DBREAK_REPLYTIME
	breaks join-before-subscribed safety "$g4" -DN=2 -DTTL=1 -DLATE=0 -DLOSSES=0 -DCANCELS=0 -DBREAK_EARLYJOIN
	breaks rejoin-at-the-end safety "$g2" $two -DFOREIGN -DQUEUELOSS=1 -DBREAK_NEWSCORE
	breaks token-by-plain-incr safety "$g10" $two -DTOKENS -DTICKS=1 -DFLUSHES=1 -DBREAK_INCR
	breaks claim-trusts-the-fence safety "$g10" $two -DTOKENS -DTICKS=1 -DFLUSHES=1 -DBREAK_NOFLOOR
	breaks raise-to-the-managers-clock safety "$g10" $two -DTOKENS -DTICKS=1 -DFLUSHES=1 -DOTHERKEY -DBREAK_CLIENTCLOCK
}

# What the protocol does not keep, as docs/model.md tells.
known() {
	breaks flush-within-a-claim safety "$g10" $two -DTOKENS -DTICKS=1 -DFLUSHES=1 -DBETWEEN=2
}

# --- failover.pml ---

alone='((key[cur]==(q+1))&&(pttl[cur]>=valid[q]))'
kept='||shaken[q])'
stays='assertion violated  !((st[q]==1))'
drawn='assertion violated (dtok>top)'

planned="-DQUEUED -DPLANNED=1"
unplanned="-DQUEUED -DUNPLANNED=1"
clock="$planned -DSKEW=1 -DDOUBTS=1 -DSTRAYS=1"
third="-DN=3 $planned -DPROMPT -DTICKS=1"
twice="$third -DLINGER -DDOUBLE"

failover_small() {
	holds failover safety $planned -DSKEW=1 -DCANCELS=1
	holds failover-of-the-unready safety $unplanned -DTWOMASTERS
	holds failover-wakeup liveness $planned
}

failover_full() {
	# Nothing is lost: no exception.
	holds failover-calls safety -DPLANNED=1
	holds failover-to-and-fro safety -DQUEUED -DPLANNED=2 -DLOSSES=1
	holds failover-cuts safety $planned -DCUTS=1 -DSKEW=1
	holds failover-clock-ahead safety $clock
	holds failover-clock-behind safety $clock -DBACKWARDS
	holds failover-former-connections safety $planned -DDOUBTS=1 -DSTRAYS=1 -DLINGER -DCANCELS=1
	holds failover-longer-leases safety $planned -DTTL=2 -DSKEW=1 -DCUTS=1
	holds failover-three safety $third
	holds failover-grants-twice safety $twice -DSAMEVALUE
	holds failover-tokens safety $planned -DTOKENS -DLAG=3 -DLINGER -DDOUBLE
	# The replica lacks the last writes.
	holds failover-old-master-goes-on safety $unplanned -DTWOMASTERS -DCANCELS=1 -DLOSSES=1
	holds failover-outage-tokens safety $unplanned -DTOKENS -DLAG=3 -DOUTAGE=4
	holds failover-two-clocks-alike safety $unplanned -DTOKENS -DTWOMASTERS
	# Every waiter is answered.
	holds failover-wakeup-unplanned liveness $unplanned -DTWOMASTERS
	holds failover-wakeup-astray liveness $planned -DCUTS=1 -DSTRAYS=1 -DPROMPT
}

failover_deliberate() {
	breaks failover-publish-and-count safety "$alone" $planned -DBREAK_PUBLISHFIRST
	breaks failover-unheard-taken-out safety "$stays" $planned -DBREAK_POPALL
	breaks failover-second-delivery-given-back safety "$alone" $twice -DSAMEVALUE -DBREAK_GIVEBACK
}

failover_deliberate_full() {
	breaks failover-deaf safety "$kept" $third -DTICKS=2 -DBREAK_DEAF
	breaks failover-believed-unasked safety "$alone" $clock -DBREAK_BELIEVE
	breaks failover-probe-without-clock safety "$alone" $clock -DBREAK_CLOCKAPART
	breaks failover-answers-from-before safety "$alone" $clock -DBREAK_OLDANSWERS
	breaks failover-own-value-given-back safety "$alone" $twice -DSAMEVALUE -DBREAK_REMEMBERED
	breaks failover-unheard-after-all safety "$alone" $twice -DMUTES=1 -DBREAK_RETRY
}

failover_known() {
	breaks failover-leases-shortened safety "$alone" $planned -DSKEW=1 -DSHORTENED
	breaks failover-former-connection-and-clock safety "$alone" $clock -DLINGER
	breaks failover-no-outage safety "$drawn" $unplanned -DTOKENS -DLAG=3
	breaks failover-two-draw safety "$drawn" -DN=3 $unplanned -DPROMPT -DTICKS=1 -DTOKENS -DTWOMASTERS -DLAG=3 -DOUTAGE=4
}

# --- quorum.pml ---

exclusion='((m==c)||'
rising='(mine[c]>' # or >=, where another was given the lock since
begun='(mine[c]>seen[c])'
nothing='(key[m]!=(c+1))'
forever='acceptance cycle'

prompt="-DSORT -DPROMPT -DNOGHOSTS"
clocks="$prompt -DCLOCKS -DCRASHES=1 -DTICKS=2"

quorum_small() {
	holds quorum safety $prompt -DHIGH=1 -DRISEN=1
	holds quorum-restart safety $prompt -DNOTOKENS -DCRASHES=1
	holds quorum-wakeup liveness -DNOGHOSTS -DNOTOKENS
}

quorum_full() {
	# Votes, with answers and ghosts as late as can be.
	holds quorum-votes safety -DSORT -DHIGH=1
	holds quorum-fences safety -DSORT -DPROMPT
	holds quorum-proposals safety -DSORT -DNOGHOSTS -DHIGH=1 -DPROPOSE=3
	holds quorum-repeats safety $prompt -DHIGH=1 -DRISEN=1 -DREPEATS=1
	holds quorum-late-releases safety -DSORT -DNOTOKENS -DSTRAYS=1
	holds quorum-renewal safety -DSORT -DNOGHOSTS -DHIGH=1 -DRISEN=1 -DRENEW
	holds quorum-three-contenders safety $prompt -DC=3 -DNOTOKENS
	holds quorum-five-nodes safety $prompt -DN=5 -DNOTOKENS
	holds quorum-five-nodes-tokens safety $prompt -DN=5 -DTTL=1 -DTICKS=1 -DHIGH=1 -DRISEN=2
	# Nodes that lose something.
	holds quorum-restart-late-answers safety -DSORT -DNOTOKENS -DCRASHES=1
	holds quorum-two-restarts safety -DSORT -DPROMPT -DNOTOKENS -DCRASHES=2
	holds quorum-restart-renewal safety -DSORT -DPROMPT -DNOTOKENS -DCRASHES=1 -DRENEW
	holds quorum-guard-of-the-client safety $prompt -DNOTOKENS -DCRASHES=1 -DRENEW -DLATEGUARD
	holds quorum-key-lost safety $prompt -DHIGH=1 -DDELETES=1
	holds quorum-clocks safety $clocks -DNORELEASE -DSKEW=1
	holds quorum-clocks-far-behind safety $clocks -DNORELEASE -DSKEW=1 -DLAG=2
	holds quorum-clocks-releases safety $clocks -DLAG=2
	holds quorum-clocks-old-fence safety $clocks -DNORELEASE -DOLDFENCE -DLAG=1
	holds quorum-clocks-without-guard safety $clocks -DBEGUN -DTICKS=1 -DRESTART=1
	holds quorum-one-manager safety $prompt -DHIGH=1 -DCRASHES=1 -DONEMANAGER
	# Somebody gets it, with weak fairness.
	holds quorum-wakeup-tokens liveness -DNOGHOSTS -DHIGH=1
	holds quorum-wakeup-node-down liveness -DNOGHOSTS -DNOTOKENS -DDOWN -DDIES -DATTEMPTS=3
}

quorum_deliberate() {
	breaks quorum-half safety "$exclusion" $prompt -DNOTOKENS -DN=4 -DTICKS=1 -DBREAK_HALF
	breaks quorum-one-round safety "$rising" $prompt -DHIGH=1 -DRISEN=1 -DTICKS=1 -DBREAK_ONEROUND
	breaks quorum-confirmed-by-anybody safety "$rising" $prompt -DHIGH=2 -DRISEN=1 -DTICKS=1 -DBREAK_ANYNODE
	breaks quorum-late-vote-above safety "$rising" $prompt -DHIGH=1 -DRISEN=1 -DDELETES=1 -DTICKS=1 -DBREAK_LATEHIGHER
	breaks quorum-same-value-again safety "$exclusion" $prompt -DNOTOKENS -DSAMEVALUE=1 -DSTRAYS=1 -DTICKS=1
}

quorum_deliberate_full() {
	breaks quorum-majority-of-the-votes safety "$rising" $prompt -DN=5 -DTTL=1 -DTICKS=1 -DHIGH=1 -DRISEN=2 -DBREAK_OFVOTES
	breaks quorum-validity-from-the-answer safety "$exclusion" $prompt -DNOTOKENS -DBREAK_ANSWERTIME
	breaks quorum-release-without-owner-check safety "$exclusion" $prompt -DC=3 -DNOTOKENS -DTICKS=1 -DBREAK_NOOWNER
	breaks quorum-release-of-the-counted safety "$nothing" $prompt -DNOTOKENS -DBREAK_RELEASESOME
	breaks quorum-confirm-without-owner-check safety "$rising" $prompt -DHIGH=1 -DRISEN=1 -DDELETES=1 -DTICKS=1 -DBREAK_UNCHECKED
	breaks quorum-extension-from-the-answer safety "$exclusion" $prompt -DNOTOKENS -DRENEW -DBREAK_LATEEXTEND
	breaks quorum-extension-of-the-lost safety "$rising" $prompt -DHIGH=0 -DRENEW -DTICKS=3 -DBREAK_LAPSED
	breaks quorum-extension-by-the-restarted safety "$exclusion" $prompt -DNOTOKENS -DCRASHES=1 -DRENEW -DTICKS=3 -DBREAK_GUARDVOTES
	breaks quorum-lost-fence-behind-the-clock safety "$rising" $clocks -DNORELEASE -DLAG=2 -DBREAK_LOSTFENCE
	breaks quorum-proposal-alone safety "$rising" $prompt -DHIGH=1 -DRISEN=1 -DCRASHES=1 -DONEMANAGER -DBREAK_RETURNED
	breaks quorum-waits-for-all liveness "$forever" -DNOGHOSTS -DNOTOKENS -DDOWN -DBREAK_WAITALL
}

quorum_known() {
	breaks quorum-no-guard safety "$exclusion" $prompt -DNOTOKENS -DCRASHES=1 -DTICKS=1 -DRESTART=0
	breaks quorum-guard-below-the-ttl safety "$exclusion" $prompt -DNOTOKENS -DCRASHES=1 -DRESTART=1
	breaks quorum-fence-lost-without-clocks safety "$rising" $prompt -DHIGH=1 -DRISEN=1 -DCRASHES=1 -DTICKS=2
	breaks quorum-clocks-too-far-apart safety "$rising" $clocks -DNORELEASE -DSKEW=2
	breaks quorum-clocks-old-fence-too-far safety "$rising" $clocks -DNORELEASE -DOLDFENCE -DLAG=1 -DSKEW=1
	breaks quorum-clocks-short-restart safety "$begun" $clocks -DBEGUN -DTICKS=1 -DRESTART=1 -DSKEW=1
	breaks quorum-ties-for-ever liveness "$forever" -DNOGHOSTS -DNOTOKENS -DATTEMPTS=9
}

case ${ONLY:-} in '' | lock)
	model=$here/lock.pml
	$size
	deliberate
	[ "$size" = full ] && known ;;
esac
case ${ONLY:-} in '' | failover)
	model=$here/failover.pml
	failover_$size
	failover_deliberate
	[ "$size" = full ] && failover_deliberate_full && failover_known ;;
esac
case ${ONLY:-} in '' | quorum)
	model=$here/quorum.pml
	quorum_$size
	quorum_deliberate
	[ "$size" = full ] && quorum_deliberate_full && quorum_known ;;
esac

if [ "$size" = full ] && [ "${2:-}" = doc ] && [ -z "${ONLY:-}" ]; then
	doc=$here/../../docs/model.md
	awk -v rows="$rows" '
		/<!-- measured -->/ { print; print "| name | search | options | states | depth | MB | s | result |"
			print "|---|---|---|---|---|---|---|---|"; while ((getline line < rows) > 0) print line; skip = 1 }
		/<!-- \/measured -->/ { skip = 0 }
		!skip && !/<!-- measured -->/' "$doc" >"$work/doc" && cp "$work/doc" "$doc"
fi

if [ $failures -gt 0 ]; then
	echo "$failures not as they should be" >&2
	exit 1
fi
echo "all as it should be"
