package aof

import "math"

// A span is when a step took place: Unix time in ms, both inclusive.
type span struct{ earliest, latest int64 }

// never is later than anything.
const never = math.MaxInt64 / 2

// Span returns when a step took place, as narrow as the history tells: by its
// second, by the deadlines and token floors set in it, and by those of the steps
// around it. If the server's clock was set, spans mean nothing.
func (l *Log) Span(step int) (earliest, latest int64) {
	if step < 0 || step >= len(l.spans) {
		return 0, never
	}
	s := l.spans[step]
	return s.earliest, s.latest
}

// times gathers what is known of the time of each step.
type times struct {
	steps []moment
	last  *moment
}

type moment struct {
	second int64 // of the annotation, in ms; 0: unknown
	exact  int64 // of the first command whose time is known, in ms; 0: unknown
	till   int64 // of the last one
	raise  int64 // the fence was raised to this time in ms

	known           *span // from elsewhere, or nil
	forked, rewound bool  // see Forked and Rewound
	over            int64 // of Rewound, in ms; 0: unknown
}

// entry takes in that an entry comes next.
func (t *times) entry(e Entry) {
	for len(t.steps) <= e.Step {
		t.steps = append(t.steps, moment{})
	}
	t.last = &t.steps[e.Step]
	t.last.second = e.Second * 1000
	if e.Latest != 0 {
		t.last.known = &span{e.Earliest, e.Latest}
	}
}

func (t *times) exactly(ms int64) {
	if t.last.exact == 0 || ms < t.last.exact {
		t.last.exact = ms
	}
	t.last.till = max(t.last.till, ms)
}

// raised: the fence was raised to a time in microseconds, which only scripts do, to
// the clock's.
func (t *times) raised(us int64) { t.last.raise = us / 1000 }

// settle narrows the spans by each other.
func (t *times) settle() []span {
	spans := make([]span, len(t.steps))
	// The next annotation is after the whole step. Its own may be before a
	// deadline set in it, if the step was slow: it dates from the beginning.
	next := int64(never)
	for i := len(t.steps) - 1; i >= 0; i-- {
		m := &t.steps[i]
		latest := int64(never)
		if m.second > 0 {
			latest = m.second + 999
		}
		spans[i] = span{m.second, latest}
		if m.exact == 0 {
			m.exact, m.till = m.raise, m.raise
		}
		bound := max(latest, next)
		if next == never {
			bound = latest + 1000
		}
		if m.exact > 0 && m.exact >= m.second && m.exact <= bound {
			spans[i] = span{m.exact, m.till}
		}
		if m.second > 0 {
			next = m.second + 999
		}
	}
	// A history that was lost, and the one that was kept, both begin with what comes before
	// the fork, and know nothing of each other.
	earliest, forked := int64(0), int64(0)
	for i := range spans {
		if t.steps[i].known != nil {
			continue
		}
		earliest = max(earliest, spans[i].earliest)
		spans[i].earliest = earliest
		switch m := t.steps[i]; {
		case m.forked:
			forked = earliest
		case m.rewound:
			earliest = forked
		}
	}
	latest, kept := int64(never), int64(never)
	for i := len(spans) - 1; i >= 0; i-- {
		switch m := t.steps[i]; {
		case m.rewound:
			kept, latest = latest, never
			if m.over > 0 {
				latest = m.over
			}
		case m.forked:
			latest = min(latest, kept)
		}
		if known := t.steps[i].known; known != nil {
			spans[i] = *known
			continue
		}
		latest = min(latest, spans[i].latest)
		spans[i].latest = latest
	}
	return spans
}
