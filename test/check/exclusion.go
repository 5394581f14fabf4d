package check

import (
	"cmp"
	"math"
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
// the first has to learn of it as soon as it asks. So may two that were granted by two
// servers which both took themselves for the master.
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
		last := make(map[*aof.Fork]*op) // of each history, whose belief lasts longest so far
		for _, o := range granted {
			from, to := o.believes()
			if to <= from {
				continue // told so late that it was over: it shows in ValidUntil
			}
			for _, other := range last {
				r.checkBoth(other, o)
			}
			history := o.history()
			if other := last[history]; other == nil || to > other.believesUntil() {
				last[history] = o
			}
		}
	}
}

// checkBoth: of two, of whom the second was granted later, the first believed no longer.
func (r *run) checkBoth(last, o *op) {
	from, to := o.believes()
	end := last.believesUntil()
	if from >= end {
		return
	}
	ops := []string{last.name, o.name}
	overlap := milliseconds(min(end, to) - from)
	robbed := last
	if !r.takenAway(last, o) && r.takenAway(o, last) {
		robbed = o // before it was told that it held
	}
	switch {
	case robbed == last && !r.takenAway(last, o):
		r.violation("G1", "belief windows", o.key, ops,
			"%s was granted while %s still believed to hold it, for %s", o.name, last.name, overlap)
	case !r.learnt(robbed):
		r.violation("G1", "unseen loss", o.key, ops,
			"%s was granted while %s believed to hold it; %s lost it to a fault, and was never told", o.name, last.name, robbed.name)
	}
	r.examined("G1", "unseen loss", 1)
}

// history returns the lost history in which the caller's hold began, or nil.
func (o *op) history() *aof.Fork {
	if o.hold == nil {
		return nil
	}
	return o.hold.Lost
}

// takenAway tells whether a fault that the run admits to ended the hold of
// before, ahead of after's; or had it, or its prolongation, in a history that was lost, of
// which after's knows nothing.
func (r *run) takenAway(before, after *op) bool {
	if before.hold == nil || after.hold == nil {
		return false
	}
	for _, fork := range []*aof.Fork{before.hold.Lost, before.hold.Cut} {
		if fork != nil && r.SecondClass.Failover && after.hold.Step > fork.Rewound {
			return true
		}
	}
	return r.bySecondClass(before.hold) && before.hold.EndStep <= after.hold.Step
}

// twoMasters tells whether two servers may have taken themselves for the master at that
// time, by a fault that the run admits to.
func (r *run) twoMasters(at int64) bool {
	return r.SecondClass.Failover && slices.ContainsFunc(r.log.Forks, func(fork *aof.Fork) bool {
		from, _ := r.span(fork.Forked)
		_, to := r.span(fork.Rewound)
		return from <= at && at <= to
	})
}

// gone returns when a hold ended: the earliest and the latest time at which it was so by
// some server that took itself for the master.
func (r *run) gone(hold *aof.Hold) (earliest, latest int64) {
	earliest, latest = math.MaxInt64, math.MaxInt64
	if hold.End != 0 {
		earliest, latest = r.span(hold.EndStep)
	}
	for _, fork := range []*aof.Fork{hold.Lost, hold.Cut} {
		if fork == nil || hold.End == 0 {
			continue
		}
		from, _ := r.span(fork.Forked)
		_, to := r.span(fork.Rewound)
		earliest, latest = min(earliest, from), max(latest, to)
	}
	return earliest, latest
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
// or never asked, or had no longer anything to be told of when it was. An Unlock whose
// reply was lost may return nil.
func (r *run) learnt(o *op) bool {
	if o.done != nil && is(o.done, "lost") {
		return true
	}
	if r.lostAt(o.hold.EndStep) != nil && o.hold.End != aof.Rewind {
		return true
	}
	_, gone := r.gone(o.hold)
	for i, e := range o.extends {
		asked := i > 0 && o.extends[i-1].Kind == history.Extend && o.extends[i-1].At > gone
		if e.Kind == history.Extended && asked {
			return e.Err != ""
		}
	}
	return o.unlocked == nil || o.unlocked.Err != "" || !r.undisturbed(o.process)
}
