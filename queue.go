package redislock

import (
	"time"
)

// A line is this manager's part of the line for one key: the callers that wait
// here, in the order in which they came. The line of all processes is the
// queue in Redis. Guarded by the manager's mutex.
//
// Invariants:
//   - at most one batch of acquires of a line is under way, and newcomers are
//     held back until it is answered, so that they join in the order in which
//     they called;
//   - those who were not yet sent are the last in the line here;
//   - a line with waiters has lookAt set, or an acquire for one of them under
//     way: no wake-up can be lost for good;
//   - a line is in its slot for as long as it has waiters or acquires
//     under way, and for lineMemory after it was last found contended.
type line struct {
	key  string // in Redis
	slot *slot

	lockArg, queueKey any   // arguments of commands: the lock key, and the queue's once it was needed
	args              []any // what scripts get: how many keys, and the keys

	list         // the waiters
	unsent *Lock // the first of those who were not yet sent to Redis; nil: all were

	acquiring int  // acquires under way, of those who wait here
	trying    int  // and those of TryLock
	claiming  bool // the one under way is a claim
	lookAgain bool // something happened while a look was under way

	contended time.Time     // when the key was last found taken
	shortest  time.Duration // the shortest lease that may be handed out ahead of us

	timer   *time.Timer
	lookAt  time.Time // when to look after the line; zero: not set
	watchAt time.Time // when to subscribe to the key's events; zero: not set

	movedAt time.Time     // when a waiter here last became the holder
	watched bool          // subscribed to the key's events
	calm    time.Duration // how much longer than quiet the line must have stood still for that
	noise   int           // events in a row that freed nothing
	noiseAt time.Time     // when the first of them came

	holder  *Lock    // of a quorum: the lock that is held here
	contest *contest // and what is known of other managers; nil: nothing
}

const (
	// lineMemory is how long a key that was found taken is remembered as
	// contended: the next caller joins the line straight away.
	lineMemory = time.Second

	// unboundedLook is how often a key is looked after whose holder set no TTL.
	unboundedLook = time.Second

	// shortestLook bounds how often a line is looked after on account of short
	// leases that may have been handed out in it.
	shortestLook = 500 * time.Millisecond

	// quiet is how long a line must stand still before its key's events are
	// subscribed to. A line that moves needs none.
	quiet = 20 * time.Millisecond

	// maxQuiet bounds how long that becomes for a line that had to be left alone
	// again: it doubles each time.
	maxQuiet = time.Second

	// noiseLimit is how many events that free nothing may come within quiet
	// before the subscription is given up again.
	noiseLimit = 8
)

// lineOf returns the line for a key, a new one if need be. The caller holds m.mu.
func (m *LockManager) lineOf(key string) *line {
	sl := m.slotOf(key)
	ln := sl.lines[key]
	if ln == nil {
		ln = newLine(key, sl)
		sl.lines[key] = ln
	}
	return ln
}

func newLine(key string, sl *slot) *line {
	return &line{key: key, slot: sl, lockArg: key}
}

// scriptKeys returns the arguments of scripts that name the keys. Many a line
// is gone before it needs them.
func (ln *line) scriptKeys() []any {
	if ln.args == nil {
		k := keysOf(ln.key)
		ln.args = []any{5, ln.lockArg, k.queue, ln.slot.fence, k.shortest, k.skipped}
	}
	return ln.args
}

// queueArg returns the argument that names the queue, which is all that a simple
// release needs.
func (ln *line) queueArg() any {
	if ln.queueKey == nil {
		ln.queueKey = sideKey(queueKeys, ln.key)
	}
	return ln.queueKey
}

// joined returns the first waiter that stands in the queue in Redis.
func (ln *line) joined() *Lock {
	for l := ln.first; l != ln.unsent; l = l.next {
		if l.joined {
			return l
		}
	}
	return nil
}

// next takes the first out of those who were not yet sent.
func (ln *line) next() *Lock {
	l := ln.unsent
	if l != nil {
		ln.unsent = l.next
	}
	return l
}

// seemsFree tells whether a plain claim is worth a try: nobody waits or is
// being served here, and the key was not found taken of late.
func (ln *line) seemsFree(now time.Time) bool {
	return ln.acquiring == 0 && ln.joined() == nil && now.Sub(ln.contended) > lineMemory
}

// pump sends what can be sent of a line. The caller holds m.mu.
func (m *LockManager) pump(ln *line, now time.Time) {
	if ln.acquiring > 0 || ln.unsent == nil || m.closed {
		return
	}
	if ln.seemsFree(now) {
		if l := ln.next(); l != nil {
			ln.claiming = true
			m.claim(l)
		}
		return
	}
	if !ln.slot.ready {
		m.listen(ln.slot) // pumps its lines once grants can arrive
		m.lookBy(ln, now, -1)
		return
	}
	for n := 0; n < maxBatch && ln.unsent != nil; n++ { // the rest once these are answered
		m.sendAcquire(&op{kind: opAcquire, lock: ln.next(), join: true})
	}
}

// claim tries for a key that is thought to be free, by plain commands. The caller
// holds m.mu.
func (m *LockManager) claim(l *Lock) { m.sendAcquire(&op{kind: opClaim, lock: l}) }

// sendAcquire sends an opClaim or opAcquire. The caller holds m.mu.
func (m *LockManager) sendAcquire(o *op) {
	l := o.lock
	o.uncertain = l.trace // the key may hold its value from before
	l.inFlight, l.trace = true, true
	if o.join {
		m.tickets[l.seq] = l
	}
	if l.try {
		l.line.trying++
	} else {
		l.line.acquiring++
	}
	m.submit(o)
}

// look has Redis tell how the line stands, and takes the lock if it is free and
// it is our turn. The caller holds m.mu.
func (m *LockManager) look(ln *line) {
	l := ln.joined()
	switch {
	case l == nil:
		m.pump(ln, time.Now())
	case l.inFlight:
		ln.lookAgain = true
	default:
		m.sendAcquire(&op{kind: opAcquire, lock: l, join: true, look: true})
	}
}

// rejoin has all waiters of the line join again, each in its old place, after
// the queue in Redis was found to have lost them. The caller holds m.mu.
func (m *LockManager) rejoin(ln *line) {
	m.warn("line was lost in Redis, joining again", "key", ln.key, "waiters", ln.length)
	for l := ln.first; l != nil; l = l.next {
		if l.joined && !l.inFlight {
			m.sendAcquire(&op{kind: opAcquire, lock: l, join: true, rejoin: true})
		}
	}
}

// lookBy sets when to look after the line: when the holder's lease is over, or
// sooner if a shorter lease may be handed out before that. The caller holds
// m.mu.
//
// Looking once in the shortest lease of the line is enough: a lease that began
// after the last look cannot end before the next.
func (m *LockManager) lookBy(ln *line, now time.Time, lease time.Duration) {
	if lease < 0 {
		lease = unboundedLook
	}
	if ln.slot.trust.deaf >= maxDeaf {
		lease = min(lease, unboundedLook)
	}
	if ln.shortest > 0 {
		lease = min(lease, max(ln.shortest, shortestLook))
	}
	at := now.Add(lease + time.Millisecond)
	if ln.lookAt.IsZero() || at.Before(ln.lookAt) {
		ln.lookAt = at
	}
	if !ln.watched && ln.watchAt.IsZero() && m.opts.keyspace != KeyspaceOff {
		ln.watchAt = now.Add(quiet + ln.calm)
	}
	m.setTimer(ln, now)
}

func (m *LockManager) setTimer(ln *line, now time.Time) {
	at := ln.lookAt
	if at.IsZero() || !ln.watchAt.IsZero() && ln.watchAt.Before(at) {
		at = ln.watchAt
	}
	switch {
	case at.IsZero():
	case ln.timer == nil:
		ln.timer = time.AfterFunc(at.Sub(now), func() { m.tick(ln) })
	default:
		ln.timer.Reset(at.Sub(now))
	}
}

// tick runs when the line's timer does.
func (m *LockManager) tick(ln *line) {
	m.mu.Lock()
	defer m.exit()
	if m.closed || ln.slot.lines[ln.key] != ln {
		return
	}
	now := time.Now()
	if ln.length == 0 {
		ln.lookAt, ln.watchAt = time.Time{}, time.Time{}
		m.tidy(ln, now)
		return
	}
	if m.quorum != nil {
		if now.Before(ln.lookAt) {
			m.setTimer(ln, now)
		} else if !ln.lookAt.IsZero() {
			m.compete(ln, now)
		}
		return
	}
	if !ln.watchAt.IsZero() && !now.Before(ln.watchAt) {
		if still := now.Sub(ln.movedAt); still < quiet+ln.calm {
			ln.watchAt = ln.movedAt.Add(quiet + ln.calm)
		} else {
			ln.watchAt = time.Time{}
			m.watch(ln)
		}
	}
	if !ln.lookAt.IsZero() && !now.Before(ln.lookAt) {
		ln.lookAt = time.Time{}
		if ln.joined() == nil && !ln.slot.ready {
			m.knock(ln)
		} else {
			m.look(ln)
		}
	}
	m.setTimer(ln, now)
}

// knock tries for the lock on behalf of the first here, while there is no
// subscription, without which nobody can wait in the queue. The caller holds
// m.mu.
func (m *LockManager) knock(ln *line) {
	if ln.acquiring > 0 {
		return
	}
	if l := ln.next(); l != nil {
		m.sendAcquire(&op{kind: opAcquire, lock: l})
	}
}

// tidy drops a line that has nothing to do. The caller holds m.mu.
func (m *LockManager) tidy(ln *line, now time.Time) {
	if ln.length > 0 || ln.acquiring > 0 || ln.trying > 0 || ln.holder != nil || ln.slot.lines[ln.key] != ln {
		return
	}
	if rest := ln.contended.Add(lineMemory).Sub(now); rest > 0 && !m.closed {
		ln.lookAt, ln.watchAt = now.Add(rest), time.Time{}
		m.setTimer(ln, now)
		return
	}
	delete(ln.slot.lines, ln.key)
	if ln.timer != nil {
		ln.timer.Stop()
	}
	if ln.watched {
		m.unwatch(ln)
	}
	if len(ln.slot.lines) == 0 && m.topology != nil {
		m.unlisten(ln.slot)
	}
}
