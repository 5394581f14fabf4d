package redislock

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"
)

// state is where a lock stands. The functions named move it on, nobody else:
//
//	waiting -> held      hold
//	waiting -> leaving   abandon
//	held    -> leaving   end (Unlock)
//	held    -> lost      lose
//	lost    -> leaving   end (Unlock)
//	leaving -> gone      forget
type state uint8

const (
	waiting state = iota // no answer yet
	held
	lost    // was held, no longer is; the key may still be there
	leaving // the caller has his answer; something may still be in Redis
	gone    // nothing is left to do
)

// A Lock is one acquisition of a key, from the call of Lock on. Its methods may
// be called from any goroutine. A nil *Lock, as TryLock and Acquire return it with an
// error, and the zero Lock are locks that were never acquired: no method panics or
// blocks.
//
// Wait, Unlock, Release and Extend wait for others, and say for how long. All other
// methods return at once.
type Lock struct {
	manager *LockManager
	verb    string // the call that it came with, for errors
	key     string
	line    *line
	ctx     context.Context
	options lockOptions
	value   string
	ttl     time.Duration

	valueArg, ttlArg any // value, and ttl in ms, as arguments of commands

	seq     uint64 // names this lock among the manager's
	began   time.Time
	outcome outcome

	// The rest is guarded by manager.mu.

	state     state
	try       bool          // TryLock: not to wait
	inFlight  bool          // an acquire for it is under way
	releasing bool          // a release of it is under way
	trace     bool          // the key may hold its value, or the queue its member
	joined    bool          // the queue may hold its member
	doubt     bool          // granted, but for how long must be asked once the way is free
	unlocking bool          // Unlock waits for cleaned
	capped    bool          // renewed up to renewEnd
	unreached bool          // Redis could not be connected to at the last attempt
	failing   bool          // a timer is to end it for that
	haunted   bool          // a late acquire may have left something in Redis
	own       bool          // the key may have its value by its own doing: see value.go
	stale     uint8         // grants that came too late to be of use
	heapAt    int32         // index in the renewals, -1 outside
	holdAt    int32         // index in the holds
	score     int64         // its place in the queue, once known
	asOf      time.Duration // server's clock when it last was seen waiting
	epoch     uint32        // of which server's clock: see trust
	failure   error         // the last failure to reach Redis

	list       *list // it stands in: its line, or those for whose answer somebody waits in Unlock or TryLock
	prev, next *Lock

	token      int64
	validUntil time.Time
	err        error         // what Err returns: an *Error
	ballot     *ballot       // nil without a quorum
	done       chan struct{} // made by Done
	settled    chan struct{} // made by Settled
	watchers   *watcher      // the first of those that Context has made
	stopCtx    func() bool

	cleaned  sync.WaitGroup // done by confirmed; Unlock waits for it
	unlockBy time.Time      // no longer than until then; nor does TryLock wait for its answer
	cleanErr error          // what came of the release; not changed after that

	renewAt  time.Time // when the next renewal is due
	renewEnd time.Time // when the longest hold is over; zero: never
}

// noLock is what a nil or zero Lock says of itself.
var (
	noLock      = &Error{callLock, "", causes(ErrNotAcquired, errors.New("the Lock is nil, or not of a manager"))}
	noLockEnded = closedChannel()
)

func closedChannel() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// isNone tells a nil or zero Lock.
func (l *Lock) isNone() bool { return l == nil || l.manager == nil }

// Wait blocks until the lock is acquired or has failed, and tells which. It
// ends with the context that was given to Lock, after WithWaitTimeout, or with the
// manager. It gives the same answer however often, and from however many
// goroutines, it is called.
func (l *Lock) Wait() Result {
	if l.isNone() {
		return Result{Err: noLock}
	}
	return l.outcome.read()
}

// Settled returns a channel that is closed when Wait would not block: the lock was
// acquired, or has failed.
func (l *Lock) Settled() <-chan struct{} {
	if l.isNone() {
		return noLockEnded
	}
	l.manager.mu.Lock()
	defer l.manager.mu.Unlock()
	if l.settled == nil {
		l.settled = make(chan struct{})
		if l.state != waiting {
			close(l.settled)
		}
	}
	return l.settled
}

// Key returns the key in Redis, prefix included.
func (l *Lock) Key() string {
	if l.isNone() {
		return ""
	}
	return l.key
}

// Value returns the owner value that Redis stores under the key while this lock
// holds it. In a quorum it may change until then, unless it is of the caller's
// choice.
func (l *Lock) Value() string {
	if l.isNone() {
		return ""
	}
	l.manager.mu.Lock()
	defer l.manager.mu.Unlock()
	return l.value
}

// Token returns the fencing token: a number greater than that of every earlier
// holder of the key. A storage that remembers the highest token it has seen and
// refuses lower ones is safe from holders that were paused beyond their lease
// (Kleppmann, How to do distributed locking). It is 0 before the acquisition.
func (l *Lock) Token() int64 {
	if l.isNone() {
		return 0
	}
	l.manager.mu.Lock()
	defer l.manager.mu.Unlock()
	return l.token
}

// ValidUntil returns when the lease ends as far as this process knows: counted
// on its monotonic clock from before the request was sent, less 1 % for clock
// drift, so never later than the key expires in Redis. It moves on with every
// confirmed extension. It is the zero time before the acquisition.
func (l *Lock) ValidUntil() time.Time {
	if l.isNone() {
		return time.Time{}
	}
	l.manager.mu.Lock()
	defer l.manager.mu.Unlock()
	return l.validUntil
}

// Done returns a channel that is closed when the lock is no longer held, for
// whatever reason: it was released, its lease ran out (no later than at the last
// confirmed ValidUntil, with Redis reachable or not), it was taken away, or it
// was never acquired.
func (l *Lock) Done() <-chan struct{} {
	if l.isNone() {
		return noLockEnded
	}
	l.manager.mu.Lock()
	defer l.manager.mu.Unlock()
	if l.done == nil {
		l.done = make(chan struct{})
		if l.ended() {
			close(l.done)
		}
	}
	return l.done
}

// ended tells that the lock is not held, and will not be.
func (l *Lock) ended() bool { return l.state != waiting && l.state != held }

// Err tells why the lock is not held: nil while it is held or still waited for;
// else an *Error, always the same, around ErrReleased, ErrLost (and the cause), or the
// reason that Wait gave.
func (l *Lock) Err() error {
	if l.isNone() {
		return noLock
	}
	l.manager.mu.Lock()
	defer l.manager.exit()
	l.checkLease(time.Now())
	return l.err
}

// Extend prolongs the lease to end ttl from now. A lease that ends later already
// is left as it is. ttl is at least 1 ms; what exceeds whole milliseconds is cut
// off.
//
// It waits for Redis's answer until ctx ends, or the lease, and no longer than 10 s.
//
// It fails with ErrNotHeld if the lock is not held, together with ErrLost if it
// turns out to have been lost. After any other error the lease may have been
// prolonged in Redis, and ValidUntil does not count on it.
func (l *Lock) Extend(ctx context.Context, ttl time.Duration) error {
	if err := l.extend(ctx, ttl); err != nil {
		return &Error{callExtend, l.Key(), err}
	}
	return nil
}

func (l *Lock) extend(ctx context.Context, ttl time.Duration) error {
	if l.isNone() {
		return ErrNotHeld
	}
	if ctx == nil {
		return invalid("context is nil")
	}
	if err := l.manager.checkTTL(ttl); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return contextError(ctx, nil)
	}
	m := l.manager
	m.mu.Lock()
	l.checkLease(time.Now())
	switch {
	case l.state == lost:
		m.exit()
		return causes(ErrNotHeld, l.reason())
	case l.state != held:
		m.exit()
		return ErrNotHeld
	case m.closed:
		m.exit()
		return ErrClosed
	}
	answer := make(chan error, 1)
	m.submit(&op{kind: opExtend, lock: l, ttl: ttl, answer: answer, copies: &copies{n: 1}})
	m.exit()
	return l.awaitExtension(ctx, answer)
}

// maxExtend is how long Extend waits for Redis to confirm.
const maxExtend = 10 * time.Second

// awaitExtension waits for an answer, until ctx or the lease ends, or maxExtend is over.
func (l *Lock) awaitExtension(ctx context.Context, answer chan error) error {
	limit := time.Now().Add(maxExtend)
	timer := time.NewTimer(min(maxExtend, time.Until(l.ValidUntil())))
	defer timer.Stop()
	for {
		select {
		case err := <-answer:
			return err
		case <-ctx.Done():
			return contextError(ctx, nil)
		case <-timer.C:
		}
		l.manager.mu.Lock()
		now := time.Now()
		l.checkLease(now)
		state, rest := l.state, min(limit.Sub(now), l.validUntil.Sub(now))
		var loss error
		if state == lost {
			loss = l.reason()
		}
		l.manager.exit()
		switch {
		case state == lost:
			return causes(ErrNotHeld, loss)
		case state != held:
			return ErrNotHeld
		case rest <= 0:
			return noAnswerWithin(maxExtend)
		}
		timer.Reset(rest)
	}
}

// member is the lock's name in the queue: see lua/handover.lua.
func (l *Lock) member() string {
	return l.manager.id + ":" + strconv.FormatInt(l.ttl.Milliseconds(), 10) + ":" +
		strconv.FormatUint(l.seq, 10) + ":" + l.value
}

// hold moves a waiting lock to held. The caller holds m.mu, as for all below.
func (m *LockManager) hold(l *Lock, token int64, validUntil, now time.Time) {
	l.state = held
	l.token, l.validUntil, l.own = token, validUntil, true
	// A request that is still under way may put it back into the queue.
	l.joined = l.inFlight
	l.line.movedAt = now
	if m.quorum != nil {
		l.line.holder = l
	}
	m.leaveLine(l, now)
	if l.options.renew {
		if l.options.maxHold <= maxTTL {
			l.renewEnd = now.Add(l.options.maxHold)
		}
		m.renewals.add(m, l, now)
	}
	m.holds.add(m, l, now)
	l.settle(Result{Token: token, ValidUntil: validUntil, Waited: now.Sub(l.began)})
}

// abandon moves a waiting lock to leaving: reason is the caller's answer, and
// whatever Redis has of the lock is cleaned up after it.
func (m *LockManager) abandon(l *Lock, reason error) {
	l.state = leaving
	l.setErr(reason)
	now := time.Now()
	m.leaveLine(l, now)
	l.finish()
	l.settle(Result{Err: l.err, Waited: now.Sub(l.began)})
	m.cleanUp(l)
}

// end moves a held or lost lock to leaving, on behalf of Unlock.
func (m *LockManager) end(l *Lock) {
	if l.state == held {
		l.setErr(ErrReleased)
		m.renewals.remove(l)
		m.holds.remove(m, l)
		l.finish()
	}
	l.state = leaving
	l.trace = true
	m.cleanUp(l)
	m.vacated(l)
}

// lose moves a held lock to lost. Redis is left alone: the key is another's or
// about to expire.
func (m *LockManager) lose(l *Lock, cause error) {
	l.state = lost
	l.setErr(causes(ErrLost, cause))
	m.disclaim(l)
	m.renewals.remove(l)
	m.holds.remove(m, l)
	l.finish()
	if rest := time.Until(l.validUntil); rest > 0 && (errors.Is(cause, errLeaseEnded) || errors.Is(cause, errMaxHold)) {
		// Lost a little early, and still promised: a late message that grants it must
		// not be taken for one that nobody waits for.
		time.AfterFunc(rest, func() {
			m.mu.Lock()
			defer m.exit()
			m.disown(l)
		})
	} else {
		m.disown(l)
	}
	m.vacated(l)
	m.warn("lock lost", "key", l.key, "value", masked(l.value), "token", l.token, "cause", cause)
}

// forget moves a leaving lock to gone: nothing in Redis names it any more, or
// nothing can be done about it.
func (m *LockManager) forget(l *Lock) {
	l.state = gone
	l.trace, l.joined = false, false
	m.disown(l)
	l.confirmed(nil)
	if l.haunted {
		l.haunted = false
		m.exorcise(l)
	}
}

// disown has messages that name the lock no longer find it.
func (m *LockManager) disown(l *Lock) {
	if m.tickets[l.seq] == l {
		delete(m.tickets, l.seq)
	}
	name := [2]string{l.key, l.value}
	if m.named[name] == l {
		delete(m.named, name)
	}
}

// cleanUp removes what Redis may have of a leaving lock, unless an acquire under
// way has to be answered first.
func (m *LockManager) cleanUp(l *Lock) {
	switch {
	case m.quorum != nil:
		m.wipe(l)
	case l.inFlight, l.releasing:
	case l.trace && (l.joined || l.mayOwn()):
		l.releasing = true
		m.submit(&op{kind: opRelease, lock: l, since: l.releaseSince(), simple: l.neverQueued() && l.line.slot.lines[l.key] == nil})
	default:
		m.forget(l)
	}
}

// neverQueued tells a lock that was acquired without standing in the queue, as far
// as is known.
func (l *Lock) neverQueued() bool { return l.token != 0 && !l.joined && l.score == 0 }

// leaveLine takes the lock out of the line here, and stops heeding its context.
func (m *LockManager) leaveLine(l *Lock, now time.Time) {
	if l.stopCtx != nil {
		l.stopCtx()
		l.stopCtx = nil
	}
	if m.quorum != nil {
		m.moveUp(l)
	}
	if l.line.unsent == l {
		l.line.unsent = l.next
	}
	if l.try {
		m.unlocking.locks.remove(l)
		m.unlocking.tidy(m)
	}
	l.line.remove(l)
	m.tidy(l.line, now)
}

// setErr sets what Err returns from now on: always the same *Error, so that it can be
// compared.
func (l *Lock) setErr(reason error) { l.err = &Error{l.verb, l.key, reason} }

// reason returns what setErr was given, for errors of other calls.
func (l *Lock) reason() error { return l.err.(*Error).Err }

// settle tells Settled and Wait the outcome.
func (l *Lock) settle(r Result) {
	l.outcome.tell(r)
	if l.settled != nil {
		close(l.settled)
	}
}

// finish tells whoever listens that the lock is not held. Contexts come first: who has
// seen Done closed finds them ended.
func (l *Lock) finish() {
	for l.watchers != nil {
		w := l.watchers
		w.remove()
		w.end(l.err)
	}
	if l.done != nil {
		close(l.done)
	}
}

// checkLease notices that a held lock's lease has run out.
func (l *Lock) checkLease(now time.Time) {
	if l.state != held || now.Before(l.validUntil) {
		return
	}
	cause := errLeaseEnded
	if l.capped {
		cause = errMaxHold
	}
	if l.options.renew && l.manager.ended != nil {
		cause = causes(cause, l.manager.ended)
	}
	l.manager.lose(l, cause)
}

// extended moves the lease on after Redis has confirmed it.
func (l *Lock) extended(validUntil time.Time) {
	if validUntil.After(l.validUntil) {
		l.validUntil = validUntil
	}
}

// masked shortens an owner value for the log.
func masked(value string) string {
	const shown = 8
	if len(value) <= shown {
		return "…"
	}
	return value[:shown] + "…"
}
