// Package check compares what the processes of a test run saw, and what the
// server's append-only file says truly happened, with what the library promises.
//
// Every checker takes O(n log n). It reports how many facts it looked at, so that
// one which looked at nothing shows.
//
// What it takes for granted of the events:
//
//   - The owner value names the acquisition, and no two share one. Those that
//     begin with "foreign:" are other programs', which leave no events.
//   - A process that was killed comes back under another name. Redis is a process
//     with a name of its own, if it is ever stopped.
//   - Call, Cancel, Extend, Write and Unlock are written before, the others after
//     what they tell of. Cancel is there also where the context has a deadline.
//   - Every caller that was granted a lock waits for Done until it unlocks, and
//     notes Done with Err, Is, and the ValidUntil of that moment. Without that
//     ValidUntil, the loss of a renewed lock is checked against the deadline in
//     Redis, which is later.
//   - Is holds words; "lost" is the one that counts.
//   - Closed comes after all callers of the process have had their answers.
//   - The resource notes its answers with times taken under its lock.
package check

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/redislock/redislock/test/aof"
	"github.com/redislock/redislock/test/history"
)

// Input is all that is known of a run.
type Input struct {
	// Events are those of all processes, in any order.
	Events []history.Event

	// Entries are those of the append-only files, see aof.Read. Without them
	// the checks against the truth look at nothing.
	Entries []aof.Entry

	// WallMinusMono is the server's wall clock less CLOCK_MONOTONIC, in ns.
	WallMinusMono int64

	// Slack is how late a process may be without having stalled. Default: 30 ms.
	Slack time.Duration

	// MaxTTL is the longest lease of the run. Default: the longest that the
	// events name.
	MaxTTL time.Duration

	// HealedAt is when the last fault was over. Default: that of the last Healed
	// event; without one there is no check of liveness.
	HealedAt int64

	// Undisturbed tells that nothing was done to a process, to its connections,
	// or to the server they lead to. Default: nothing was done to anybody, if
	// there is no Fault event, and the process was neither stopped nor killed.
	Undisturbed func(process string) bool

	// SecondClass names the faults of the run under which exclusion may break.
	SecondClass SecondClass

	// Leftover are the keys found in Redis when all was over.
	Leftover []Leftover

	// KeepDir, if set, is where pictures of histories go that are not
	// linearizable.
	KeepDir string

	// TimeLimit bounds the search for a linearization of one key. Default: 20 s.
	TimeLimit time.Duration
}

// SecondClass says which faults a run had that may take a lock away from its
// holder. What was not named is a violation.
type SecondClass struct {
	Flush     bool // FLUSHALL
	Restart   bool // a restart without persistence
	Eviction  bool
	ClockJump bool // the server's clock was set
	Deletion  bool // the key was deleted by somebody who was not its owner
	Failover  bool // a master died, and the replica in its place had not received all
}

func (s SecondClass) any() bool { return s != SecondClass{} }

// Leftover is a key that was left in Redis.
type Leftover struct {
	Key string
	TTL time.Duration // negative: none
}

// A Violation is a promise that was broken.
type Violation struct {
	Guarantee string   // "G1"
	Checker   string   // "belief windows"
	Key       string   // the lock key, if one is concerned
	Text      string   // what is wrong
	Ops       []string // owner values of those involved
}

func (v Violation) String() string {
	text := v.Guarantee + " " + v.Checker + ": "
	if v.Key != "" {
		text += fmt.Sprintf("key %q: ", v.Key)
	}
	return text + v.Text
}

// Examined counts what a checker looked at.
type Examined struct {
	Guarantee, Checker string
	Facts              int
}

// Report is the outcome of Check.
type Report struct {
	Operations int // calls
	Grants     int // as the callers saw them
	Entries    int // of the append-only files
	Examined   []Examined
	Violations []Violation
	LeftOut    int // violations beyond the first 20 of a checker

	// Unknown are the keys for whose linearization the time did not suffice.
	Unknown []string
}

// Facts returns how many facts were looked at for a guarantee, or by the checker
// of that name.
func (r Report) Facts(name string) (n int) {
	for _, e := range r.Examined {
		if e.Guarantee == name || e.Checker == name {
			n += e.Facts
		}
	}
	return n
}

// String returns the counts, a line for each checker.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d operations, %d grants, %d entries in the append-only files, %d violations, %d keys unknown\n",
		r.Operations, r.Grants, r.Entries, len(r.Violations)+r.LeftOut, len(r.Unknown))
	for _, e := range r.Examined {
		fmt.Fprintf(&b, "  %-4s %-22s %8d\n", e.Guarantee, e.Checker, e.Facts)
	}
	return b.String()
}

// Check runs every checker.
func Check(in Input) Report {
	r := newRun(in)
	for _, check := range []func(*run){
		checkBelief,
		checkOwners,
		checkProlongations,
		checkValidity,
		checkLoss,
		checkTokens,
		checkResource,
		checkOrder,
		checkDead,
		checkLiveness,
		checkAnswers,
		checkClean,
		checkLinearizable,
	} {
		check(r)
	}
	slices.SortStableFunc(r.report.Violations, func(a, b Violation) int {
		return cmp.Or(len(a.Guarantee)-len(b.Guarantee), strings.Compare(a.Guarantee, b.Guarantee))
	})
	return r.report
}

// run is one run of the checkers.
type run struct {
	Input
	ops       map[string]*op
	processes map[string]*process
	keys      []string         // of the lock, sorted
	byKey     map[string][]*op // in the order of the calls
	pauses    intervals        // of any process
	log       *aof.Log
	told      map[[2]string]int
	report    Report
}

const (
	defaultSlack     = 30 * time.Millisecond
	defaultTimeLimit = 20 * time.Second
)

func newRun(in Input) *run {
	in.Slack = cmp.Or(in.Slack, defaultSlack)
	in.TimeLimit = cmp.Or(in.TimeLimit, defaultTimeLimit)
	r := &run{Input: in, told: make(map[[2]string]int)}
	r.index()
	r.log = aof.Replay(in.Entries, func(value string) (int64, bool) {
		if o := r.ops[value]; o != nil {
			return o.ttl.Milliseconds(), true
		}
		return 0, false
	})
	r.attach()
	r.report.Operations, r.report.Entries = len(r.ops), len(in.Entries)
	for _, o := range r.ops {
		if o.granted != nil {
			r.report.Grants++
		}
	}
	return r
}

// examined notes that a checker has looked at n facts more.
func (r *run) examined(guarantee, checker string, n int) {
	for i := range r.report.Examined {
		if e := &r.report.Examined[i]; e.Guarantee == guarantee && e.Checker == checker {
			e.Facts += n
			return
		}
	}
	r.report.Examined = append(r.report.Examined, Examined{guarantee, checker, n})
}

// enough is how many violations of one kind are told in full.
const enough = 20

func (r *run) violation(guarantee, checker, key string, ops []string, format string, args ...any) {
	kind := [2]string{guarantee, checker}
	if r.told[kind]++; r.told[kind] > enough {
		r.report.LeftOut++
		return
	}
	r.report.Violations = append(r.report.Violations, Violation{
		Guarantee: guarantee, Checker: checker, Key: key, Ops: ops, Text: fmt.Sprintf(format, args...),
	})
}

// mono turns the server's time in ms into CLOCK_MONOTONIC.
func (r *run) mono(ms int64) int64 {
	if ms >= math.MaxInt64/int64(time.Millisecond) {
		return math.MaxInt64 // unknown
	}
	return ms*int64(time.Millisecond) - r.WallMinusMono
}

// span returns when a step of the append-only file took place, on
// CLOCK_MONOTONIC, both inclusive.
func (r *run) span(step int) (earliest, latest int64) {
	from, to := r.log.Span(step)
	to++ // the server's time is cut off to whole milliseconds
	return r.mono(from), r.mono(to)
}

// steady tells that the server's clock can be compared with the processes'.
func (r *run) steady() bool { return !r.SecondClass.ClockJump }

// clockError is how far the conversion between the clocks is trusted.
const clockError = int64(time.Millisecond)
