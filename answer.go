package redislock

import (
	"errors"
	"time"
)

// What follows from each answer, and from none. The caller of everything here
// holds m.mu.

const (
	maxAttempts        = 4  // of a request that a caller waits for
	maxReleaseAttempts = 6  // of a release, before Unlock returns an error
	maxRefusals        = 20 // likewise, by a Redis that answers but is not ready

	// maxUnreached is how long a call may take that cannot even connect to a Redis that
	// was never heard from, and maxLosing to one that was.
	maxUnreached = 1800 * time.Millisecond
	maxLosing    = 5 * time.Second
)

// unreached takes in whether a waiter's attempt to reach Redis, so many nodes of a quorum
// that no majority is left, has failed for want of a connection. Such attempts may
// take long, as the client dials several times in each: a call that does not stand in the
// line, nor knows the key to be taken, fails in time all the same. reached tells whether
// anybody there was ever heard from.
func (m *LockManager) unreached(l *Lock, reached, dial bool, now time.Time) {
	l.unreached = dial
	if !dial || l.failing || l.waits() || l.state != waiting {
		return
	}
	l.failing = true
	limit := maxLosing
	if !reached {
		limit = maxUnreached
	}
	time.AfterFunc(max(l.began.Add(limit).Sub(now), time.Millisecond), func() {
		m.mu.Lock()
		defer m.exit()
		if l.failing = false; l.state == waiting && l.unreached && !l.waits() {
			if l.ballot != nil && l.ballot.vote != nil {
				l.failure = l.ballot.vote.noMajority() // the vote is still under way
			}
			m.abandon(l, l.failure)
		}
	})
}

// waits tells that the lock was found taken, so that it is waited for.
func (l *Lock) waits() bool { return l.joined || l.ballot != nil && l.ballot.known }

// tryAgain decides whether an op that failed unsettled is sent once more, and
// prepares it for that.
func (m *LockManager) tryAgain(o *op, err error, now time.Time) bool {
	l := o.lock
	if m.quorum != nil {
		return m.nodeTryAgain(o, err, now)
	}
	l.failure = err
	if m.closed {
		return false
	}
	switch o.kind {
	case opClaim, opAcquire:
		if o.kind == opClaim && o.uncertain {
			o.kind = opAcquire // which recognises its own value
		}
		// One who stands in the line waits for Redis to come back.
		return l.state == waiting && (l.joined || o.attempts < maxAttempts || o.maySoonBeServed(now))
	case opRelease:
		limit := maxReleaseAttempts
		if o.failure.refused() {
			limit = maxRefusals
		}
		if o.attempts < limit {
			return true
		}
		l.confirmed(err) // it may take long, and Unlock must not
		return now.Before(l.validUntil)
	case opRaise, opProbe:
		return o.attempts < maxAttempts
	default:
		if o.copies.settled || o.copies.n > 1 {
			return false
		}
		return l.state == held && now.Before(l.validUntil) &&
			(o.answer == nil || o.attempts < maxAttempts || o.failure.refused())
	}
}

// maxReplicaTime is for how long one who does not stand in a line, and whose context
// sets no time, is refused by a replica before he is told so. A failover takes less; the
// address of a replica stays what it is.
const maxReplicaTime = 10 * time.Second

// maySoonBeServed tells whether to wait for servers that are changing their parts: all
// do so that have refused a call from the start. TryLock has a timer of its own.
func (o *op) maySoonBeServed(now time.Time) bool {
	refusedFor := now.Sub(o.since)
	switch o.failure {
	case elsewhere, changing, replica:
		_, bounded := o.lock.ctx.Deadline()
		return bounded || o.failure != replica || refusedFor < maxReplicaTime
	}
	return false
}

// complete takes in the answer to an op. err is nil or redis.Nil, the error that
// Redis answered, or the failure after which it is not tried again.
func (m *LockManager) complete(o *op, s *shard, err error, now time.Time) {
	if m.quorum != nil {
		m.voted(o, s, err, now)
		return
	}
	switch o.kind {
	case opClaim, opAcquire:
		l, ln := o.lock, o.lock.line
		l.inFlight = false
		if l.try {
			ln.trying--
		} else {
			ln.acquiring--
			ln.claiming = ln.claiming && ln.acquiring > 0
		}
		if o.kind == opClaim {
			m.claimed(o, err, now)
		} else {
			m.acquired(o, s, err, now)
		}
		if l.state == leaving && !l.inFlight && !l.releasing {
			m.cleanUp(l) // which was waiting for this answer
		}
		if !m.closed {
			m.tend(ln, o.look, now)
		}
		m.tidy(ln, now)
	case opRelease:
		m.released(o, err, now)
	case opExtend:
		m.extended(o, err, now)
	case opRaise:
		o.lock.line.slot.mending = false
	case opProbe:
		m.probed(o, s, err, now)
	}
}

// tend keeps the line going after an acquire of it was answered.
func (m *LockManager) tend(ln *line, looked bool, now time.Time) {
	if ln.lookAgain || looked && ln.lookAt.IsZero() {
		ln.lookAgain = false
		m.look(ln)
	}
	m.pump(ln, now)
}

// claimed takes in the answer to SET NX and to the drawing of a token.
func (m *LockManager) claimed(o *op, err error, now time.Time) {
	l := o.lock
	token, ok := o.token()
	begun := ok && token <= o.floor // the fence was lost, and INCRBY has begun one far too low
	if begun && (err != nil || l.state != waiting) {
		m.mendFence(l.line.slot)
	}
	if err == nil {
		o.uncertain, l.own = true, true // for whatever comes to pass from here on
		if l.state == waiting && (begun || !ok) {
			// The script draws a token that begins anew from the server's clock.
			m.sendAcquire(&op{kind: opAcquire, lock: l})
			return
		}
		if m.replicated(o) {
			m.granted(l, token, o.sent.Add(l.ttl-drift(l.ttl)), now)
		}
		return
	}
	if o.failure == empty {
		l.trace = false
		m.taken(l, now)
		return
	}
	o.uncertain, l.own = o.uncertain || o.halfDone(), l.own || o.halfDone()
	m.failed(o, err)
}

// mendFence raises a fence that a claim has begun and nobody may draw from soon: it has
// no time to live before that.
func (m *LockManager) mendFence(sl *slot) {
	if !sl.mending {
		sl.mending = true
		m.submit(&op{kind: opRaise, lock: &Lock{manager: m, line: newLine(sl.key, sl)}})
	}
}

// acquired takes in the answer of acquire.lua.
func (m *LockManager) acquired(o *op, s *shard, err error, now time.Time) {
	l, ln := o.lock, o.lock.line
	var r acquireReply
	if err == nil {
		r, err = decodeAcquire(o.cmd.Val())
		o.uncertain = o.uncertain || err != nil
	}
	if err != nil {
		o.uncertain = o.uncertain || o.failure.mayHaveRun()
		l.own = l.own || o.failure == success || o.failure.mayHaveRun() // success: it is not understood
		l.joined = l.joined || o.join && o.uncertain
		m.failed(o, err)
		return
	}
	s.proven = s.proven || !o.follow
	s.observe(o.sent, now, r.server)
	m.turned(l.key, r)
	if r.held {
		l.own = true
		if r.lease < 0 {
			r.lease = l.ttl // the TTL was taken off: trust in what was asked for
		}
		lost := r.alone && l.joined && !o.rejoin
		if m.replicated(o) {
			m.granted(l, r.token, o.sent.Add(r.lease-drift(r.lease)), now)
		}
		if lost && !m.closed {
			m.rejoin(ln)
		}
		return
	}

	if !l.doubt && l.token == 0 {
		l.own = false // the key is another's, and no grant was heard of since
	}
	if !o.join {
		l.trace = l.joined
		m.taken(l, now)
		return
	}
	again := l.joined && r.added && !o.rejoin
	l.joined = true
	if l.state != waiting { // granted in the meantime
		if l.state != leaving && l.hasChosenValue() {
			m.standDown(l)
		}
		return
	}
	l.score = r.score
	l.wasSeen(o, r.server)
	ln.contended = now
	if !r.behind {
		ln.shortest = r.shortest
		m.lookBy(ln, now, r.lease)
	}
	if l.doubt || ln.lookAt.IsZero() {
		m.confirm(l)
	}
	if o.look {
		m.find(ln, r.holder)
	}
	if again {
		if at := ln.slot.at; at != nil {
			at.events.suspected() // we may have been skipped as nobody was heard to listen
		}
		m.rejoin(ln)
	}
}

// standDown has a lock that was granted leave the line again. A request that crossed the
// grant found its value under the key, could not tell whose it is, as others may go by the
// same, and had it join anew. It would be granted the key once more when it is long over.
func (m *LockManager) standDown(l *Lock) {
	x := m.ghostOf(l)
	x.options.value, x.token = l.value, l.token // which leaves the key alone
	m.submit(&op{kind: opRelease, lock: x})
}

// turned takes in that a script found the key free, and whose turn it was.
func (m *LockManager) turned(key string, r acquireReply) {
	if r.turn == 0 {
		return
	}
	if x := m.tickets[r.turn]; x != nil {
		m.heardGrant(x)
		m.confirm(x)
	} else {
		m.giveBack(r.turn, key, r.holder)
	}
}

// find confirms the waiter, if there is one here, whose value the key holds: the
// message that should have told it was lost.
func (m *LockManager) find(ln *line, holder string) {
	for l := ln.first; l != nil; l = l.next {
		if l.value == holder && l.mayOwn() {
			m.confirm(l)
			return
		}
	}
}

// confirm asks Redis whether a waiter has become the holder, and for how long.
// If it has not, or no longer, it stands in its old place in the line.
func (m *LockManager) confirm(l *Lock) {
	if l.state != waiting {
		return
	}
	if l.inFlight {
		l.doubt = true
		return
	}
	l.doubt = false
	m.sendAcquire(&op{kind: opAcquire, lock: l, join: l.joined})
}

// taken: the key has another holder, and the lock has not joined the line.
func (m *LockManager) taken(l *Lock, now time.Time) {
	ln := l.line
	ln.contended = now
	switch {
	case l.state != waiting:
	case l.try:
		m.abandon(l, ErrNotAcquired)
	default:
		ln.unsent = l // it came before those held back
		if m.opts.maxQueue > 0 && ln.length > m.opts.maxQueue {
			m.abandon(ln.last, ErrQueueFull)
		}
	}
}

// failed: an acquire was refused, or is given up.
func (m *LockManager) failed(o *op, err error) {
	l := o.lock
	if !o.uncertain && !l.joined {
		l.trace = false
	}
	switch {
	case m.strayed(err):
		err = causes(err, errCluster)
	case o.failure == replica:
		err = causes(err, errReplica)
	}
	if l.state == waiting {
		m.abandon(l, err)
	}
}

// granted: the key holds the lock's value, until validUntil at least.
func (m *LockManager) granted(l *Lock, token int64, validUntil, now time.Time) {
	if l.state != waiting {
		return // known already, or on its way to be given back
	}
	ln := l.line
	switch {
	case m.stopping: // a TryLock that was answered since
		m.abandon(l, ErrClosed)
	case l.ctx.Err() != nil:
		m.abandon(l, contextError(l.ctx, l.failure))
	case now.Before(validUntil):
		m.hold(l, token, validUntil, now)
		if ln.joined() != nil {
			m.lookBy(ln, now, l.ttl)
		}
	case l.stale < maxAttempts:
		l.stale++
		if l.joined {
			m.lookBy(ln, now, time.Duration(l.stale)*time.Millisecond)
		} else {
			m.confirm(l)
		}
	default:
		m.abandon(l, causes(m.orFar(l, []error{ErrNotAcquired, errLate})...))
	}
}

// grantedElsewhere takes in a message that another manager's release made a
// waiter of this one the holder.
func (m *LockManager) grantedElsewhere(g grant, s *shard, now time.Time) {
	l := m.tickets[g.seq]
	if l == nil || l.key != g.key || l.value != g.value {
		m.giveBack(g.seq, g.key, g.value)
		return
	}
	sl := l.line.slot
	if now.Sub(sl.trust.at) >= probeAfter {
		m.probe(sl)
	}
	if l.isOf(sl) && g.server < l.asOf {
		m.crossed(l, g.server)
		return
	}
	m.heardGrant(l)
	if l.state != waiting {
		return // known, or gone again, or about to be given back
	}
	if m.opts.replicas > 0 || !sl.trust.heard || !l.isOf(sl) {
		m.confirm(l)
		return
	}
	// The lease began when the message was sent, which may be long ago if this
	// process slept. Where the clocks cannot tell, ask.
	c := &s.clock
	sent := now
	if c.known() {
		sent = c.local(g.server)
	}
	validUntil := sent.Add(l.ttl - drift(l.ttl))
	if !c.known() || sent.After(now.Add(l.ttl/100)) || validUntil.Sub(now) < l.ttl/2 {
		m.confirm(l)
		return
	}
	if sent.After(now) {
		validUntil = now.Add(l.ttl - drift(l.ttl))
	}
	m.granted(l, g.token, validUntil, now)
}

// giveBack releases a grant that nobody here waits for any more. Of a chosen value it
// may be a message that came twice, and the key another's by now.
func (m *LockManager) giveBack(seq uint64, key, value string) {
	if isChosen(seq) {
		m.warn("a grant that nobody waits for has to run out", "key", key, "value", masked(value))
		return
	}
	m.warn("giving back a grant that nobody waits for", "key", key, "value", masked(value))
	m.submit(&op{kind: opRelease, lock: m.ghost(key, value)})
}

// ghost stands for a lock that is gone, or never was, to clean up after it.
func (m *LockManager) ghost(key, value string) *Lock {
	return &Lock{
		manager: m, key: key, line: newLine(key, m.slotOf(key)), value: value, valueArg: value, state: leaving, heapAt: -1,
	}
}

// ghostOf stands for a lock and for its place in the line.
func (m *LockManager) ghostOf(l *Lock) *Lock {
	x := m.ghost(l.key, l.value)
	x.seq, x.ttl, x.joined = l.seq, l.ttl, true
	return x
}

// released takes in the answer of release.lua, or of free.lua.
func (m *LockManager) released(o *op, err error, now time.Time) {
	l := o.lock
	ln := l.line.slot.lines[l.key]
	var r releaseReply
	switch {
	case err != nil:
	case o.simple:
		if r.freed, err = decodeFree(o.cmd.Val(), o.place); err == nil && !r.freed {
			o.simple = false
			m.submit(o)
			return
		}
		r.released = r.freed
	default:
		r, err = decodeRelease(o.cmd.Val())
	}
	if isDenied(err) && !o.plain {
		m.releasePlainly(o)
		return
	}
	switch {
	case err != nil:
		l.confirmed(err)
		if m.ended != nil && l.token == 0 {
			break // all has been said
		}
		if m.closed && m.closeErr == nil {
			m.closeErr = err
		}
		m.warn("release failed, the lease has to run out",
			"key", l.key, "value", masked(l.value), "error", err)
	case !r.released && l.token != 0 && errors.Is(l.err, ErrReleased) && !o.uncertain:
		// Not so after an attempt whose answer was lost: that one may have
		// released it.
		l.confirmed(causes(ErrNotHeld, ErrLost, errTakenAway))
		m.warn("lock was lost before it was released",
			"key", l.key, "value", masked(l.value), "token", l.token)
	}
	if r.foreign && l.token == 0 {
		m.leftBehind(l)
	} else {
		m.forget(l)
	}

	if r.handed {
		next := m.tickets[r.seq]
		switch {
		case next == nil:
			m.giveBack(r.seq, l.key, r.value)
		case next.isOf(next.line.slot) && r.server < next.asOf: // it has had to join again since
			m.crossed(next, r.server)
		case m.opts.replicas > 0, !next.isOf(next.line.slot):
			m.heardGrant(next)
			m.confirm(next)
		default:
			m.heardGrant(next)
			m.granted(next, r.token, o.sent.Add(next.ttl-drift(next.ttl)), now)
		}
	}
	// An answer that was lost may have held a grant; and a key that is free
	// although somebody stands in line says that the queue was lost.
	if ln != nil && !m.closed && (o.uncertain || r.freed && ln.joined() != nil) {
		m.look(ln)
	}
}

// extended takes in the answer of extend.lua.
func (m *LockManager) extended(o *op, err error, now time.Time) {
	if !o.copies.settledBy(err != nil) {
		return // another copy has been answered, or may be
	}
	var lease int64
	if err == nil {
		var ok bool
		if lease, ok = asInt(o.cmd.Val()); !ok {
			err = errors.New("unexpected reply to extend")
		}
	}
	m.extensionEnded(o, o.sent, lease, err, now)
}

// extensionEnded tells the outcome of an extension to whoever waits for it. lease
// is what was left of the lease, or more, at some moment after sent, in ms;
// negative: the lock has another holder.
func (m *LockManager) extensionEnded(o *op, sent time.Time, lease int64, err error, now time.Time) {
	l := o.lock
	switch {
	case err != nil:
		m.warn("extension failed", "key", l.key, "value", masked(l.value), "error", err)
	case lease < 0:
		err = ErrNotHeld
		if l.state == held {
			m.lose(l, errTakenAway)
			err = causes(ErrNotHeld, l.reason())
		}
	case l.state == held:
		d := time.Duration(min(lease, maxTTL.Milliseconds())) * time.Millisecond
		validUntil := sent.Add(d - m.drift(d))
		if o.answer == nil && !l.renewEnd.IsZero() && validUntil.After(l.renewEnd) {
			validUntil = l.renewEnd // Redis may be late with a renewal, we are not
		}
		l.extended(validUntil)
		l.checkLease(now)
	}
	if err == nil && l.state != held {
		if err = ErrNotHeld; l.state == lost {
			err = causes(ErrNotHeld, l.reason())
		}
	}
	if o.answer == nil {
		m.renewals.renewed(m, l, now)
	} else {
		o.answer <- err
	}
}
