package check

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/redislock/redislock/test/aof"
	"github.com/redislock/redislock/test/history"
)

// lateSecond is how much older than the command the second noted for it may be.
// For expired keys Redis notes the time that it read last, at the latest command or
// the latest turn of its timer, of which there are ten a second; and it may have
// been put aside since.
func (r *run) lateSecond() int64 { return 100 + r.Slack.Milliseconds() }

// checkOwners follows every value that a lock key had: it was set with a
// deadline, for as long as its owner asked for; and it went because the deadline
// had come, or because its owner gave it away.
func checkOwners(r *run) {
	for _, name := range r.keys {
		key := r.log.Keys[name]
		if key == nil {
			continue
		}
		for i, hold := range key.Holds {
			r.examined("G1", "deadlines", len(hold.Deadlines))
			for _, d := range hold.Deadlines {
				if d.At == 0 {
					r.violation("G1", "deadlines", name, []string{hold.Value}, "%s holds it without a deadline (entry %d)",
						hold.Value, hold.Serial)
				}
			}
			o := r.ops[hold.Value]
			isForeign := strings.HasPrefix(hold.Value, foreign)
			if o == nil && !isForeign {
				r.violation("G8", "owners", name, []string{hold.Value}, "set to %s, which nobody asked for (entry %d)",
					hold.Value, hold.Serial)
				continue
			}
			if o != nil {
				r.checkLease(o, hold)
			}
			r.examined("G8", "owners", 1)
			var next *aof.Hold
			if i+1 < len(key.Holds) {
				next = key.Holds[i+1]
			}
			if why := r.unjust(o, hold, next); why != "" {
				ops := []string{hold.Value}
				if hold.Next != "" {
					ops = append(ops, hold.Next)
				}
				ops = append(ops, r.suspects(hold)...)
				r.violation("G8", "owners", name, ops, "%s was removed (%v, entry %d) %s",
					hold.Value, hold.End, hold.EndSerial, why)
			}
		}
		for _, f := range key.Facts {
			if f.Kind == aof.Strange {
				r.violation("G8", "owners", name, nil, "a command that neither the library nor the tests send: %s", f.Text)
			}
		}
	}
}

// checkLease: the deadline is the time of the SET and the TTL that was asked for.
// So the deadline less the TTL has to lie within what is known of the step, and
// between the call and the grant.
func (r *run) checkLease(o *op, hold *aof.Hold) {
	if !r.steady() || hold.Again || hold.Deadlines[0].At == 0 {
		return
	}
	r.examined("G8", "leases", 1)
	at := hold.Deadlines[0].At - o.ttl.Milliseconds()
	from, to := r.log.Span(hold.Step)
	from = max(from, (o.call.At-clockError+r.WallMinusMono)/1e6)
	if hold == o.hold {
		to = min(to, (o.granted.At+clockError+r.WallMinusMono)/1e6)
	}
	if at < from || at > to {
		r.violation("G8", "leases", o.key, []string{o.name},
			"%s was set with a deadline %d ms off what its TTL of %v makes (entry %d)",
			o.name, max(from-at, at-to), o.ttl, hold.Serial)
	}
}

// suspects returns who else was unlocking when a hold ended: up to three.
func (r *run) suspects(hold *aof.Hold) (names []string) {
	from, to := r.span(hold.EndStep)
	for _, o := range r.byKey[hold.Key] {
		if o.name != hold.Value && o.unlock != nil && o.unlocked != nil && len(names) < 3 &&
			o.unlock.At <= to && o.unlocked.At >= from {
			names = append(names, o.name)
		}
	}
	return names
}

// unjust says what is wrong about the end of a hold, or "".
func (r *run) unjust(o *op, hold, next *aof.Hold) string {
	if r.bySecondClass(hold) {
		return ""
	}
	_, latest := r.log.Span(hold.EndStep)
	switch hold.End {
	case aof.Unlink:
		if latest+r.lateSecond() < hold.Last() && r.steady() {
			return fmt.Sprintf("at least %d ms before its deadline", hold.Last()-latest)
		}
	case aof.Replace:
		if o == nil {
			return "by " + hold.Next + ", though another program held it"
		}
		if next == nil || !next.FromQueue {
			return "by " + hold.Next + ", which was not the next in line"
		}
		return r.unreleased(o, hold)
	case aof.Delete:
		if o != nil { // another program deletes its own
			return r.unreleased(o, hold)
		}
	case aof.Flush, aof.Restart, aof.Rewind:
		return "by a fault that the run does not admit to"
	}
	return ""
}

// unreleased says why an owner cannot have given its key away yet, or "".
func (r *run) unreleased(o *op, hold *aof.Hold) string {
	if o.granted == nil || hold != o.hold {
		return "" // a grant that nobody waited for, given back
	}
	_, latest := r.span(hold.EndStep)
	if !r.steady() {
		latest = math.MaxInt64
	}
	switch {
	case o.unlock != nil && latest >= o.unlock.At-clockError:
		return ""
	case o.unlock != nil:
		return fmt.Sprintf("at least %s before its Unlock", milliseconds(o.unlock.At-latest))
	case o.process.killed != math.MaxInt64:
		return "though its process was killed and had not called Unlock"
	}
	// A message that came late may have a lock given back that was lost by then.
	if _, to := o.believes(); latest < to {
		return "though it had not called Unlock"
	}
	return ""
}

// checkProlongations: a lease is moved on only for an owner who asked for that,
// by no more than it asked for, and never back.
func checkProlongations(r *run) {
	const guarantee, checker = "G8", "prolongations"
	for _, name := range r.keys {
		key := r.log.Keys[name]
		if key == nil {
			continue
		}
		for _, f := range key.Facts {
			if f.Kind != aof.Prolong {
				continue
			}
			r.examined(guarantee, checker, 1)
			bad := func(format string, args ...any) {
				r.violation(guarantee, checker, name, []string{f.Value}, "lease of %s moved (entry %d): %s",
					f.Value, f.Serial, fmt.Sprintf(format, args...))
			}
			if f.Deadline < f.Before {
				bad("back by %d ms", f.Before-f.Deadline)
			}
			o := r.ops[f.Value]
			if o == nil {
				bad("its owner does not do that")
				continue
			}
			_, latest := r.span(f.Step)
			longest, asked := time.Duration(0), o.renew
			if o.renew {
				longest = o.ttl
			}
			for _, e := range o.extends {
				if e.Kind == history.Extend && (e.At <= latest+clockError || !r.steady()) {
					longest, asked = max(longest, time.Duration(e.TTL)), true
				}
			}
			// Not this step's second, which may be old if Redis was stopped in it.
			_, to := r.log.Span(f.Step + 1)
			switch {
			case !asked:
				bad("nobody had asked for that")
			case r.steady() && f.Deadline > to+r.lateSecond()+longest.Milliseconds():
				bad("to %d ms beyond what was asked for", f.Deadline-to-longest.Milliseconds())
			}
		}
	}
}

// milliseconds writes a time in ns.
func milliseconds(ns int64) string {
	return fmt.Sprintf("%.3f ms", float64(ns)/float64(time.Millisecond))
}
