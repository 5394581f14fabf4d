package check

import (
	"cmp"
	"slices"

	"github.com/redislock/redislock/test/aof"
	"github.com/redislock/redislock/test/history"
)

// checkBelief: no two callers of a key take themselves for its holder at a time.
// A belief lasts from Granted to the first of Unlock, Done, the last ValidUntil,
// and the death of the process. All processes share one clock, so there is no
// allowance.
//
// Where a fault of the second class took the key away, two may believe; but then
// the first has to learn of it as soon as it asks.
func checkBelief(r *run) {
	const guarantee, checker = "G1", "belief windows"
	for _, key := range r.keys {
		var granted []*op
		for _, o := range r.byKey[key] {
			if o.granted != nil {
				granted = append(granted, o)
			}
		}
		slices.SortStableFunc(granted, func(a, b *op) int { return cmp.Compare(a.granted.At, b.granted.At) })
		r.examined(guarantee, checker, len(granted))
		var last *op // whose belief lasts longest so far
		end := int64(0)
		for _, o := range granted {
			from, to := o.believes()
			if to <= from {
				continue // told so late that it was over: it shows in ValidUntil
			}
			if last != nil && from < end {
				ops := []string{last.name, o.name}
				overlap := milliseconds(min(end, to) - from)
				robbed := last
				if !r.takenAway(last, o) && r.takenAway(o, last) {
					robbed = o // before it was told that it held
				}
				switch {
				case robbed == last && !r.takenAway(last, o):
					r.violation(guarantee, checker, key, ops,
						"%s was granted while %s still believed to hold it, for %s", o.name, last.name, overlap)
				case !r.learnt(robbed):
					r.violation(guarantee, "unseen loss", key, ops,
						"%s was granted while %s believed to hold it; %s lost it to a fault, and was never told", o.name, last.name, robbed.name)
				}
				r.examined(guarantee, "unseen loss", 1)
			}
			if to > end {
				last, end = o, to
			}
		}
	}
}

// takenAway tells whether a fault that the run admits to ended the hold of
// before, ahead of after's.
func (r *run) takenAway(before, after *op) bool {
	return before.hold != nil && r.bySecondClass(before.hold) &&
		after.hold != nil && before.hold.EndStep <= after.hold.Step
}

// bySecondClass tells whether a fault that the run admits to may have ended a hold.
func (r *run) bySecondClass(hold *aof.Hold) bool {
	s := r.SecondClass
	switch hold.End {
	case aof.Flush:
		return s.Flush
	case aof.Restart:
		return s.Restart
	case aof.Rewind:
		return s.Failover
	case aof.Unlink:
		return s.Eviction || s.ClockJump
	case aof.Delete:
		return s.Eviction || s.Deletion
	}
	return false
}

// learnt tells whether a caller whose lock was taken away was told when it asked,
// or never asked. An Unlock whose reply was lost may return nil.
func (r *run) learnt(o *op) bool {
	if o.done != nil && is(o.done, "lost") {
		return true
	}
	_, gone := r.span(o.hold.EndStep)
	for i, e := range o.extends {
		asked := i > 0 && o.extends[i-1].Kind == history.Extend && o.extends[i-1].At > gone
		if e.Kind == history.Extended && asked {
			return e.Err != ""
		}
	}
	return o.unlocked == nil || o.unlocked.Err != "" || !r.undisturbed(o.process)
}
