package check

import (
	"math"
	"strings"
	"time"

	"github.com/redislock/redislock/test/aof"
	"github.com/redislock/redislock/test/history"
)

// mayWait is how long the key may be free, or its holder not know of it, while
// somebody waits.
const mayWait = time.Second

// checkLiveness: once all faults are over, nobody is forgotten. Everybody who
// waits then gets an answer; and when the longest lease and a second have passed,
// no key is left without a holder for more than a second while a live caller
// waits for it.
//
// A key is held while somebody believes to hold it, and also while Redis has it
// for an owner that need not know or act any more: one that is dead, stopped, of
// another program, or that did not unlock. It is not held in this sense while its
// owner waits for it: that one's grant was lost, and it must ask.
func checkLiveness(r *run) {
	if r.HealedAt == 0 {
		return
	}
	for _, key := range r.keys {
		r.checkForgotten(key)
		r.checkIdle(key)
	}
}

func (r *run) checkForgotten(key string) {
	const guarantee, checker = "G5", "nobody forgotten"
	for _, o := range r.byKey[key] {
		if o.process.killed != math.MaxInt64 || r.stoppedForEver(o.process) {
			continue
		}
		waiting := o.call.At <= r.HealedAt && (o.granted == nil || o.granted.At > r.HealedAt)
		closed := o.process.closed != math.MaxInt64 // which answers all who wait
		if o.cancel != nil && !closed || !waiting && !closed {
			continue
		}
		r.examined(guarantee, checker, 1)
		if o.granted == nil && o.failed == nil {
			r.violation(guarantee, checker, key, []string{o.name},
				"%s was still waiting at the end, %s after its call", o.name, milliseconds(max(o.process.last, r.HealedAt)-o.call.At))
		}
	}
}

func (r *run) stoppedForEver(p *process) bool {
	n := len(p.pauses.list)
	return n > 0 && p.pauses.list[n-1].to == math.MaxInt64
}

func (r *run) checkIdle(key string) {
	const guarantee, checker = "G5", "no idle key"
	begin := r.HealedAt + int64(r.MaxTTL) + int64(mayWait)
	var waits, held intervals
	for _, o := range r.byKey[key] {
		if from, to := o.waits(); !o.try {
			waits.add(max(from, begin), to)
		}
		if o.granted != nil {
			from, to := o.believes()
			held.add(from, to)
		}
	}
	waits.sort()
	if log := r.log.Keys[key]; log != nil {
		for _, hold := range log.Holds {
			if from, to, ok := r.needNotAct(hold); ok {
				held.add(from, to)
			}
		}
	}
	held.sort()
	r.examined(guarantee, checker, len(waits.list))
	idle := waits.without(&held)
	for _, gap := range idle.list {
		allowed := int64(mayWait+r.Slack) + r.pauses.overlap(gap.from, gap.to)
		if gap.to-gap.from <= allowed {
			continue
		}
		var ops []string
		for _, o := range r.byKey[key] {
			if from, to := o.waits(); !o.try && from < gap.to && to > gap.from && len(ops) < 3 {
				ops = append(ops, o.name)
			}
		}
		r.violation(guarantee, checker, key, ops,
			"nobody held it for %s, while %s waited", milliseconds(gap.to-gap.from), strings.Join(ops, ", "))
	}
}

// waits returns the time for which a call waited while its process lived.
func (o *op) waits() (from, to int64) {
	from, to = o.call.At, o.process.killed
	for _, e := range []*history.Event{o.granted, o.failed, o.cancel, o.unlock} {
		if e != nil {
			to = min(to, e.At)
		}
	}
	if to == math.MaxInt64 {
		to = max(o.process.last, from)
	}
	return from, to
}

// needNotAct returns the time for which Redis had the key for an owner that was
// not waiting for it.
func (r *run) needNotAct(hold *aof.Hold) (from, to int64, ok bool) {
	from, _ = r.span(hold.Step)
	to = r.mono(hold.Last())
	if hold.End != 0 {
		_, end := r.span(hold.EndStep)
		to = min(to, end)
	}
	o := r.ops[hold.Value]
	switch {
	case o == nil:
		return from, to, true
	case o.granted == nil:
		dead := o.process.killed != math.MaxInt64 || r.stoppedForEver(o.process)
		return from, to, dead
	case o.unlock != nil:
		to = min(to, o.unlock.At)
	}
	return max(from, o.granted.At), to, true
}
