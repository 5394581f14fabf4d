package check

import (
	"math"

	"github.com/redislock/redislock/test/aof"
)

// checkValidity: no ValidUntil is later than the truth, which is the deadline in
// the append-only file: of a SET or a prolongation for this operation that was
// made before the library said so. And no lock is given out when it is over.
func checkValidity(r *run) {
	const guarantee = "G6"
	for _, key := range r.keys {
		for _, o := range r.byKey[key] {
			if o.granted != nil && o.granted.ValidUntil != 0 {
				r.examined(guarantee, "granted in time", 1)
				late := o.granted.At - o.granted.ValidUntil
				if late > r.Slack.Nanoseconds() && !o.process.pausedBetween(o.granted.ValidUntil-r.Slack.Nanoseconds(), o.granted.At) {
					r.violation(guarantee, "granted in time", key, []string{o.name},
						"%s was granted %s after its ValidUntil", o.name, milliseconds(late))
				}
			}
			r.checkHonest(o)
		}
	}
}

func (r *run) checkHonest(o *op) {
	const guarantee, checker = "G6", "never after the truth"
	if len(r.Entries) == 0 || !r.steady() || len(o.valid) == 0 {
		return
	}
	var truth []aof.Deadline
	for _, hold := range o.holds {
		truth = append(truth, hold.Deadlines...)
	}
	for _, e := range o.valid {
		r.examined(guarantee, checker, 1)
		latest := int64(-1)
		for _, d := range truth {
			// Those made after the event do not count.
			if from, _ := r.span(d.Step); from <= e.At+clockError {
				latest = max(latest, d.At)
			}
		}
		if latest < 0 {
			r.violation(guarantee, checker, o.key, []string{o.name},
				"%s was told a ValidUntil (%s) and had not been granted it in Redis", o.name, e.Kind)
			return
		}
		if late := e.ValidUntil - r.mono(latest); late > clockError {
			r.violation(guarantee, checker, o.key, []string{o.name},
				"ValidUntil of %s (%s) is %s after the key's deadline", o.name, e.Kind, milliseconds(late))
			return
		}
	}
}

// checkLoss: Done is closed by the last ValidUntil that was confirmed. Where the
// events do not name the last one, as of a renewal just before the loss, the
// deadline in the append-only file stands in for it, which is later.
func checkLoss(r *run) {
	const guarantee = "G7"
	slack := r.Slack.Nanoseconds()
	for _, key := range r.keys {
		for _, o := range r.byKey[key] {
			valid := o.lastValid()
			if o.granted == nil || valid == 0 {
				continue
			}
			if o.done != nil && is(o.done, "lost") {
				due := valid
				if o.renew && o.done.ValidUntil == 0 && o.hold != nil {
					due = max(due, r.mono(o.hold.Last()))
				}
				r.examined(guarantee, "told in time", 1)
				r.examined(guarantee, "told at all", 1)
				if late := o.done.At - due; late > slack && !o.process.pausedBetween(due-slack, o.done.At) {
					r.violation(guarantee, "told in time", key, []string{o.name},
						"Done of %s came %s after its last ValidUntil", o.name, milliseconds(late))
				}
			}
			if o.done == nil {
				r.checkTold(o, valid)
			}
		}
	}
}

// checkTold: who neither unlocked nor died has to be told that the lease is over.
func (r *run) checkTold(o *op, valid int64) {
	due := valid + r.Slack.Nanoseconds()
	if o.renew && o.hold != nil {
		due = max(due, r.mono(o.hold.Last())+r.Slack.Nanoseconds())
	}
	// A process that stands still is told when it runs again.
	for pause := o.process.pauses.overlap(valid, due); pause > 0; {
		more := o.process.pauses.overlap(valid, due+pause)
		if due+more < due { // stopped for ever
			return
		}
		if more == pause {
			due += pause
			break
		}
		pause = more
	}
	// One that was killed is known to have lived until its last event: on a busy machine
	// it is half a second until it is known to be gone.
	ends := o.process.closed
	if ends == math.MaxInt64 {
		ends = min(o.process.killed, o.process.last)
	}
	if ends <= due || o.unlock != nil && o.unlock.At <= due {
		return
	}
	r.examined("G7", "told at all", 1)
	r.violation("G7", "told at all", o.key, []string{o.name},
		"%s was never told that its lease was over: %s later there was no Done", o.name, milliseconds(ends-valid))
}
