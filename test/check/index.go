package check

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/redislock/redislock/test/aof"
	"github.com/redislock/redislock/test/history"
)

// op is one acquisition: what its process said of it, and what is true.
type op struct {
	name, key string
	process   *process
	ttl       time.Duration
	renew     bool
	try       bool

	call     *history.Event
	granted  *history.Event
	failed   *history.Event
	cancel   *history.Event
	unlock   *history.Event
	unlocked *history.Event
	done     *history.Event
	extends  []*history.Event // Extend and Extended
	writes   []*history.Event // Write and Written
	valid    []*history.Event // all that name a ValidUntil

	holds  []*aof.Hold
	joined bool
	hold   *aof.Hold // the one that was granted to the caller
}

// foreign begins the owner values of other programs. They leave no events.
const foreign = "foreign:"

// lastValid returns the last ValidUntil that the library named, 0 if none.
func (o *op) lastValid() (last int64) {
	for _, e := range o.valid {
		last = max(last, e.ValidUntil)
	}
	return last
}

// believes returns the time within which the caller could take the lock for his.
func (o *op) believes() (from, to int64) {
	from, to = o.granted.At, math.MaxInt64
	if valid := o.lastValid(); valid != 0 {
		to = valid
	}
	for _, e := range []*history.Event{o.unlock, o.done} {
		if e != nil {
			to = min(to, e.At)
		}
	}
	return from, min(to, o.process.killed)
}

func (o *op) believesUntil() int64 {
	_, to := o.believes()
	return to
}

// process is one process, Redis included if it is ever stopped.
type process struct {
	name           string
	killed, closed int64 // math.MaxInt64: never
	last           int64 // its last event of its own
	disturbed      bool  // killed or stopped
	pauses         intervals
}

// pausedBetween tells whether the process did not run at some time in between.
func (p *process) pausedBetween(from, to int64) bool { return p.pauses.overlap(from, to) > 0 }

func (r *run) process(name string) *process {
	p := r.processes[name]
	if p == nil {
		p = &process{name: name, killed: math.MaxInt64, closed: math.MaxInt64}
		r.processes[name] = p
	}
	return p
}

// undisturbed tells that nothing was done that may have hurt the process.
func (r *run) undisturbed(p *process) bool {
	if r.Undisturbed != nil {
		return r.Undisturbed(p.name) && !p.disturbed
	}
	return !p.disturbed && !slices.ContainsFunc(r.Events, func(e history.Event) bool { return e.Kind == history.Fault })
}

// index sorts the events by operation and process.
func (r *run) index() {
	r.Events = slices.Clone(r.Events)
	slices.SortStableFunc(r.Events, func(a, b history.Event) int { return cmp.Compare(a.At, b.At) })
	r.ops, r.processes = make(map[string]*op), make(map[string]*process)
	r.byKey = make(map[string][]*op)
	stopped := make(map[*process]int64)
	healed := int64(0)
	for i := range r.Events {
		if e := &r.Events[i]; e.Kind == history.Call {
			r.indexCall(e)
		}
	}
	for i := range r.Events {
		e := &r.Events[i]
		p := r.process(e.Process)
		switch e.Kind {
		case history.Killed:
			p.killed, p.disturbed = min(p.killed, e.At), true
		case history.Stopped:
			p.disturbed = true
			if _, already := stopped[p]; !already {
				stopped[p] = e.At
			}
		case history.Resumed:
			if from, ok := stopped[p]; ok {
				r.pause(p, from, e.At)
				delete(stopped, p)
			}
		case history.Stall:
			r.pause(p, e.At-e.Took, e.At)
			p.last = e.At
		case history.Cut:
			p.last = e.At
		case history.Closed:
			p.closed, p.last = min(p.closed, e.At), e.At
		case history.Healed:
			healed = e.At
		case history.Fault, history.Accepted, history.Refused:
		default:
			p.last = e.At
			r.indexOp(e)
		}
	}
	r.HealedAt = cmp.Or(r.HealedAt, healed)
	for p, from := range stopped {
		r.pause(p, from, math.MaxInt64)
	}
	for _, p := range r.processes {
		p.pauses.sort()
	}
	r.pauses.sort()
	for key := range r.byKey {
		r.keys = append(r.keys, key)
	}
	slices.Sort(r.keys)
}

func (r *run) pause(p *process, from, to int64) {
	p.pauses.add(from, to)
	r.pauses.add(from, to)
}

func (r *run) indexCall(e *history.Event) {
	if r.ops[e.Op] != nil || e.Op == "" {
		r.violation("log", "calls", e.Key, []string{e.Op}, "two calls go by the value %q", e.Op)
		return
	}
	o := &op{
		name: e.Op, key: e.Key, process: r.process(e.Process), call: e,
		ttl: time.Duration(e.TTL), renew: e.Renew, try: e.Method == "try",
	}
	r.ops[e.Op] = o
	r.byKey[e.Key] = append(r.byKey[e.Key], o)
	r.MaxTTL = max(r.MaxTTL, o.ttl)
}

func (r *run) indexOp(e *history.Event) {
	o := r.ops[e.Op]
	if o == nil {
		if e.Op != "" {
			r.violation("log", "calls", e.Key, []string{e.Op}, "%s of %s, which was never called", e.Kind, e.Op)
		}
		return
	}
	first := func(at **history.Event) {
		if *at == nil {
			*at = e
		}
	}
	switch e.Kind {
	case history.Granted:
		first(&o.granted)
	case history.Failed:
		first(&o.failed)
	case history.Cancel:
		first(&o.cancel)
	case history.Unlock:
		first(&o.unlock)
	case history.Unlocked:
		first(&o.unlocked)
	case history.Done:
		first(&o.done)
	case history.Extend, history.Extended:
		o.extends = append(o.extends, e)
		r.MaxTTL = max(r.MaxTTL, time.Duration(e.TTL))
	case history.Write, history.Written:
		o.writes = append(o.writes, e)
	}
	if e.ValidUntil != 0 {
		o.valid = append(o.valid, e)
	}
}

// attach gives each operation what the append-only file has of it.
func (r *run) attach() {
	for _, name := range r.keys {
		key := r.log.Keys[name]
		if key == nil {
			continue
		}
		for _, hold := range key.Holds {
			if o := r.ops[hold.Value]; o != nil && o.key == name {
				o.holds = append(o.holds, hold)
			}
		}
		for _, f := range key.Facts {
			if o := r.ops[f.Value]; f.Kind == aof.Join && o != nil {
				o.joined = true
			}
		}
	}
	drawn := make(map[int64]int, len(r.log.Draws))
	for _, draw := range r.log.Draws {
		drawn[draw.Token] = draw.Step
	}
	for _, o := range r.ops {
		if o.granted == nil {
			continue
		}
		// A value may have been set more than once: a grant that was noticed too
		// late is followed by another. The token tells which one was accepted:
		// it was drawn with, or after, the SET.
		step, known := drawn[o.granted.Token]
		for _, hold := range o.holds {
			if o.hold == nil || !known || hold.Step <= step {
				o.hold = hold
			}
		}
	}
}

// is tells whether an event's error is the sentinel of that name.
func is(e *history.Event, sentinel string) bool {
	return slices.Contains(strings.Fields(e.Is), sentinel)
}
