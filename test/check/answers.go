package check

import (
	"github.com/redislock/redislock/test/aof"
	"github.com/redislock/redislock/test/history"
)

// checkAnswers: what a caller was told of its own lock is true.
//
// Unlock returns nil for a lock that was held if the owner's value was removed by
// this call: deleted, or replaced by the next in line, not before it. The library
// documents one exception: after a reply that was lost, "not the owner" may mean
// that the first attempt released it, and is no error. So that is asked only of
// processes nothing was done to.
//
// Extend returns nil only if the owner still had the key when it was called.
//
// "Lost", before the lease is over by the process's own clock, says that the key
// was gone or another's. After that it needs no reason. Nor does it while two servers take
// themselves for the master: either may be asked.
func checkAnswers(r *run) {
	if len(r.Entries) == 0 {
		return
	}
	for _, key := range r.keys {
		for _, o := range r.byKey[key] {
			if o.granted == nil || o.hold == nil {
				continue
			}
			r.checkUnlocked(o)
			r.checkExtended(o)
			r.checkLost(o)
		}
	}
}

func (r *run) checkUnlocked(o *op) {
	const guarantee, checker = "G8", "unlock answers"
	if o.unlock == nil || o.unlocked == nil || o.unlocked.Err != "" {
		return
	}
	r.examined(guarantee, checker, 1)
	hold := o.hold
	bad := func(what string) {
		r.violation(guarantee, checker, o.key, []string{o.name}, "Unlock of %s returned nil, but its value %s", o.name, what)
	}
	// A value that was removed early is what G8 owners reports.
	switch _, latest := r.span(hold.EndStep); {
	case hold.End == 0:
		bad("is still there")
	case (hold.End == aof.Delete || hold.End == aof.Replace) && (latest >= o.unlock.At-clockError || !r.steady()):
	case r.undisturbed(o.process):
		bad("had been removed otherwise: " + hold.End.String())
	}
}

func (r *run) checkExtended(o *op) {
	const guarantee, checker = "G8", "extend answers"
	if !r.steady() {
		return
	}
	for i := 0; i+1 < len(o.extends); i++ {
		asked, answered := o.extends[i], o.extends[i+1]
		if asked.Kind != history.Extend || answered.Kind != history.Extended || answered.Err != "" {
			continue
		}
		r.examined(guarantee, checker, 1)
		if _, latest := r.gone(o.hold); o.hold.End != 0 && latest < asked.At-clockError {
			r.violation(guarantee, checker, o.key, []string{o.name},
				"Extend of %s returned nil, but its value had been removed %s before the call: %v",
				o.name, milliseconds(asked.At-latest), o.hold.End)
		}
	}
}

func (r *run) checkLost(o *op) {
	const guarantee, checker = "G8", "loss is true"
	// Done is closed a little before ValidUntil, so as to be there by then.
	margin := min(int64(o.ttl)/50, 5e6) + clockError
	valid := o.lastValid()
	if valid == 0 || !r.steady() {
		return
	}
	events := append([]*history.Event{o.done, o.unlocked}, o.extends...)
	for _, e := range events {
		if e == nil || !is(e, "lost") || e.At >= valid-margin {
			continue
		}
		r.examined(guarantee, checker, 1)
		if r.twoMasters(e.At) {
			continue // the other one had not
		}
		if gone, _ := r.gone(o.hold); gone > e.At+clockError {
			r.violation(guarantee, checker, o.key, []string{o.name},
				"%s was told that it is lost (%s) %s before its ValidUntil, and Redis had it still",
				o.name, e.Kind, milliseconds(valid-e.At))
			return
		}
	}
}
