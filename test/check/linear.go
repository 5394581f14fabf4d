package check

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"

	"github.com/redislock/redislock/test/aof"
)

// checkLinearizable has porcupine search an order of all that happened to a key
// in which it behaves as a lock does: taken only when free, with a higher token
// than before; freed only by its holder, its expiry, or a fault.
//
// What the callers saw counts as they saw it: an acquisition took effect between
// Call and Granted, a release between Unlock and Unlocked. Where the outcome is
// unknown (the process died, the reply was lost, the grant was given back, it is
// another program's) the append-only file says whether it took effect, and when:
// the interval is that of its step. Expiry and FLUSHALL are operations of their
// own, at the time of the file. Where a master was replaced that went on, each of the two
// was a lock: what the one did that was lost is a history by itself, beginning with
// what was there at the fork. Releases that failed and acquisitions that were
// never made change nothing and are left out.
func checkLinearizable(r *run) {
	if len(r.Entries) == 0 || !r.steady() {
		return
	}
	for _, key := range r.keys {
		r.checkHistory(key, r.operations(key, nil))
		for _, fork := range r.log.Forks {
			r.checkHistory(key, r.operations(key, fork))
		}
	}
}

func (r *run) checkHistory(key string, history []porcupine.Operation) {
	const guarantee, checker = "G1", "linearizable"
	r.examined(guarantee, checker, len(history))
	switch porcupine.CheckOperationsTimeout(lockModel, history, r.TimeLimit) {
	case porcupine.Unknown:
		r.report.Unknown = append(r.report.Unknown, key)
	case porcupine.Illegal:
		// Once more for the picture: to note the way costs much more.
		_, info := porcupine.CheckOperationsVerbose(lockModel, history, r.TimeLimit)
		r.violation(guarantee, checker, key, stuckAt(history, info), "no order of its %d operations explains what was seen%s",
			len(history), r.keep(key, info))
	}
}

// keep writes the picture of a history, and says where.
func (r *run) keep(key string, info porcupine.LinearizationInfo) string {
	if r.KeepDir == "" {
		return ""
	}
	name := strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' {
			return c
		}
		return '_'
	}, key)
	path := filepath.Join(r.KeepDir, fmt.Sprintf("history-%d-%s.html", slices.Index(r.keys, key), name))
	file, err := os.Create(path)
	if err != nil {
		return fmt.Sprintf(" (no picture: %v)", err)
	}
	defer file.Close()
	if err := porcupine.Visualize(lockModel, info, file); err != nil {
		return fmt.Sprintf(" (no picture: %v)", err)
	}
	return ": see " + path
}

// stuckAt names the operations around the place where the longest order that was
// found ends: the first few that it lacks.
func stuckAt(history []porcupine.Operation, info porcupine.LinearizationInfo) (ops []string) {
	var longest []int
	for _, partial := range info.PartialLinearizations() {
		for _, order := range partial {
			if len(order) > len(longest) {
				longest = order
			}
		}
	}
	placed := make([]bool, len(history))
	for _, i := range longest {
		placed[i] = true
	}
	var rest []porcupine.Operation
	for i, one := range history {
		if !placed[i] {
			rest = append(rest, one)
		}
	}
	slices.SortStableFunc(rest, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	if n := len(longest); n > 0 {
		rest = append([]porcupine.Operation{history[longest[n-1]]}, rest...)
	}
	for _, one := range rest[:min(len(rest), 3)] {
		if owner := one.Input.(step).owner; owner != "" && !slices.Contains(ops, owner) {
			ops = append(ops, owner)
		}
	}
	return ops
}

// lockState is a lock, for porcupine: who holds it, and the highest token.
type lockState struct {
	holder string
	token  int64
}

// step is what an operation does to it.
type step struct {
	kind  string // "acquire", "release", "expire" or "flush"
	owner string
	token int64 // acquire: 0 if it is not known
}

var lockModel = porcupine.Model{
	Init: func() any { return lockState{} },
	Step: func(state, input, _ any) (bool, any) {
		s, in := state.(lockState), input.(step)
		switch in.kind {
		case "acquire":
			if s.holder != "" || in.token != 0 && in.token <= s.token {
				return false, s
			}
			return true, lockState{in.owner, max(s.token, in.token)}
		case "flush":
			return true, lockState{"", s.token}
		default:
			return s.holder == in.owner, lockState{"", s.token}
		}
	},
	DescribeOperation: func(input, _ any) string {
		in := input.(step)
		if in.token != 0 {
			return fmt.Sprintf("%s(%s) -> %d", in.kind, in.owner, in.token)
		}
		return fmt.Sprintf("%s(%s)", in.kind, in.owner)
	},
	DescribeState: func(state any) string {
		s := state.(lockState)
		return fmt.Sprintf("%s, token %d", cmp.Or(s.holder, "free"), s.token)
	},
}

// operations returns the history of a key for porcupine: the one that was kept, or one
// that was lost.
func (r *run) operations(key string, lost *aof.Fork) (history []porcupine.Operation) {
	clients := make(map[string]int)
	add := func(s step, from, to int64) {
		client, ok := clients[s.owner]
		if !ok {
			client = len(clients)
			clients[s.owner] = client
		}
		history = append(history, porcupine.Operation{
			ClientId: client, Input: s, Call: from, Return: max(from, to),
		})
	}
	// Calls that were granted and that the file knows nothing of.
	for _, o := range r.byKey[key] {
		if lost == nil && o.granted != nil && o.hold == nil {
			add(step{"acquire", o.name, o.granted.Token}, o.call.At, o.granted.At)
		}
	}
	log := r.log.Keys[key]
	if log == nil {
		return history
	}
	for _, hold := range log.Holds {
		if hold.Lost != lost && (lost == nil || hold.Lost != nil || !within(hold, lost.Forked)) {
			continue
		}
		o := r.ops[hold.Value]
		from, to := r.span(hold.Step)
		switch {
		case lost == nil && hold.Again: // it had not ended
		case o != nil && o.hold == hold:
			add(step{"acquire", o.name, o.granted.Token}, o.call.At, o.granted.At)
		default:
			add(step{"acquire", hold.Value, 0}, from, to)
		}
		if r.lostAt(hold.EndStep) != lost {
			continue
		}
		from, to = r.span(hold.EndStep)
		switch hold.End {
		case aof.Unlink:
			// The key is over at its deadline, whenever it is cleared away; or
			// when it was evicted.
			if over := r.mono(hold.Last()); over <= to {
				from = over
			}
			add(step{"expire", hold.Value, 0}, from, to)
		case aof.Delete, aof.Replace:
			if o != nil && o.hold == hold && o.unlock != nil && o.unlocked != nil && o.unlocked.Err == "" {
				from, to = o.unlock.At, o.unlocked.At
			}
			add(step{"release", hold.Value, 0}, from, to)
		}
	}
	for _, f := range log.Facts {
		if lost == nil && (f.Kind == aof.Flush || f.Kind == aof.Restart) {
			from, to := r.span(f.Step)
			if to == math.MaxInt64 {
				to = math.MaxInt64 - 1
			}
			add(step{"flush", "", 0}, from, to)
		}
	}
	return history
}

// within tells whether a hold lasted at a step.
func within(hold *aof.Hold, at int) bool {
	return hold.Step < at && (hold.End == 0 || hold.EndStep > at)
}

// lostAt returns the lost history that a step is part of, or nil.
func (r *run) lostAt(step int) *aof.Fork {
	for _, fork := range r.log.Forks {
		if fork.Forked < step && step <= fork.Rewound {
			return fork
		}
	}
	return nil
}
