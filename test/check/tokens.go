package check

import (
	"cmp"
	"slices"

	"github.com/redislock/redislock/test/history"
)

// checkTokens: no token is given out twice, and they rise for each key: in real
// time, and in the order of the grants in the append-only file. Each was drawn
// there while, or before, the key was its operation's.
//
// Two servers that both take themselves for the master may draw the same; but neither
// draws what is behind its clock by more than 10 ms.
func checkTokens(r *run) {
	const guarantee = "G10"
	owner := make(map[int64]*op)
	drawn := make(map[int64]bool, len(r.log.Draws))
	for _, draw := range r.log.Draws {
		drawn[draw.Token] = true
	}
	for _, key := range r.keys {
		var granted []*op
		for _, o := range r.byKey[key] { // in the order of the calls
			if o.granted == nil {
				continue
			}
			granted = append(granted, o)
			token := o.granted.Token
			r.examined(guarantee, "unique", 1)
			if other := owner[token]; other != nil && !r.apart(o, other) || token <= 0 {
				ops := []string{o.name}
				if other != nil {
					ops = []string{other.name, o.name}
				}
				r.violation(guarantee, "unique", key, ops, "token %d of %s is not its own", token, o.name)
			}
			owner[token] = o
			if len(r.Entries) > 0 && !drawn[token] {
				r.violation(guarantee, "drawn", key, []string{o.name}, "token %d of %s was never drawn in Redis", token, o.name)
			}
		}
		if len(r.Entries) > 0 {
			r.examined(guarantee, "drawn", len(granted))
		}
		r.checkRealTime(key, granted)
		r.checkSerial(key, granted)
	}
}

// checkRealTime: who called after another was granted gets a higher token.
func (r *run) checkRealTime(key string, calls []*op) {
	const guarantee, checker = "G10", "rising in real time"
	grants := slices.Clone(calls)
	slices.SortStableFunc(grants, func(a, b *op) int { return cmp.Compare(a.granted.At, b.granted.At) })
	var highest *op
	next := 0
	for _, o := range calls {
		for ; next < len(grants) && grants[next].granted.At < o.call.At; next++ {
			if highest == nil || grants[next].granted.Token > highest.granted.Token {
				highest = grants[next]
			}
		}
		if highest == nil {
			continue
		}
		r.examined(guarantee, checker, 1)
		if highest.granted.Token >= o.granted.Token &&
			!(r.apart(highest, o) && highest.granted.Token-o.granted.Token < mayLag) {
			r.violation(guarantee, checker, key, []string{highest.name, o.name},
				"%s got token %d, and %s, which called %s later, only %d", highest.name, highest.granted.Token,
				o.name, milliseconds(o.call.At-highest.granted.At), o.granted.Token)
		}
	}
}

// checkSerial: tokens rise with the grants as Redis made them.
func (r *run) checkSerial(key string, granted []*op) {
	const guarantee, checker = "G10", "rising in Redis"
	var set []*op
	for _, o := range granted {
		if o.hold != nil {
			set = append(set, o)
		}
	}
	slices.SortStableFunc(set, func(a, b *op) int { return cmp.Compare(a.hold.Step, b.hold.Step) })
	var highest, kept *op // of the history that the operation is part of; of that which was not lost
	for _, o := range set {
		r.examined(guarantee, checker, 1)
		if o.hold.Lost == nil {
			highest = kept
		}
		if highest != nil && highest.granted.Token >= o.granted.Token {
			r.violation(guarantee, checker, key, []string{highest.name, o.name},
				"%s was set (entry %d) before %s (entry %d), but has token %d, and that %d", highest.name, highest.hold.Serial,
				o.name, o.hold.Serial, highest.granted.Token, o.granted.Token)
		}
		if highest == nil || o.granted.Token > highest.granted.Token {
			highest = o
		}
		if o.hold.Lost == nil {
			kept = highest
		}
	}
}

// refusedForLost tells whether somebody whose grant was lost had been to the resource
// with a higher token.
func (r *run) refusedForLost(o *op, refused *history.Event) bool {
	return slices.ContainsFunc(r.byKey[o.key], func(other *op) bool {
		return other.granted != nil && r.apart(o, other) && other.granted.Token > o.granted.Token &&
			slices.ContainsFunc(other.writes, func(e *history.Event) bool { return e.At < refused.At })
	})
}

// mayLag is how far a token may be behind the clock, in microseconds, and a little more.
const mayLag = 11_000

// apart tells whether two were granted by servers that knew nothing of each other, one
// of which was in the other's place.
func (r *run) apart(a, b *op) bool {
	return r.SecondClass.Failover && a.history() != b.history()
}

// checkResource: the guarded resource never took a write with a lower token after
// one with a higher one, and never refused a holder within its belief.
func checkResource(r *run) {
	const guarantee = "G10"
	highest := make(map[string]*history.Event)
	for i := range r.Events {
		e := &r.Events[i]
		if e.Kind != history.Accepted && e.Kind != history.Refused {
			continue
		}
		r.examined(guarantee, "resource", 1)
		before := highest[e.Key]
		switch {
		case e.Kind == history.Refused && (before == nil || e.Token >= before.Token):
			r.violation(guarantee, "resource", e.Key, []string{e.Op}, "refused token %d of %s without having seen a higher one", e.Token, e.Op)
		case e.Kind == history.Accepted && before != nil && e.Token < before.Token:
			r.violation(guarantee, "resource", e.Key, []string{before.Op, e.Op},
				"took token %d of %s after %d of %s", e.Token, e.Op, before.Token, before.Op)
		case e.Kind == history.Accepted:
			highest[e.Key] = e
		}
	}
	for _, key := range r.keys {
		for _, o := range r.byKey[key] {
			if o.granted == nil || o.hold != nil && (r.bySecondClass(o.hold) || r.SecondClass.Failover && (o.hold.Lost != nil || o.hold.Cut != nil)) {
				continue // another may have been let in rightly
			}
			from, to := o.believes()
			for i := 0; i+1 < len(o.writes); i++ {
				begun, answered := o.writes[i], o.writes[i+1]
				if begun.Kind != history.Write || answered.Kind != history.Written || answered.Err != "" ||
					begun.At < from || answered.At > to {
					continue
				}
				r.examined(guarantee, "holders' writes", 1)
				if !answered.Accepted && !r.refusedForLost(o, answered) {
					r.violation(guarantee, "holders' writes", key, []string{o.name},
						"a write of %s with token %d was refused while it held the lock", o.name, begun.Token)
				}
			}
		}
	}
}
