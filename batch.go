package redislock

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// What a manager sends goes out in batches: with nothing in flight a request is
// sent at once, alone; what comes while requests are in flight goes out
// together as one pipeline when the way is free. Idle callers pay no delay, busy
// ones share system calls.
const (
	// maxInFlight is how many batches may be under way at a time. With two, a
	// release need not wait for the answer to somebody's request.
	maxInFlight = 2

	// stallAfter is when a batch no longer counts: its connection may be dead,
	// and what comes after it is sent over another one.
	stallAfter = 250 * time.Millisecond

	// maxExtends is how many extensions go out together. All that a manager has to
	// renew at a time may be more than is answered before the batch counts as
	// stalled; and others have to wait for it.
	maxExtends = 500

	// maxStalled bounds the batches that no longer count.
	maxStalled = 6

	maxBackoff = 500 * time.Millisecond
)

// A sender is the part of the manager that talks to Redis. Guarded by the
// manager's mutex.
type sender struct {
	pending  []*op
	refused  []*op // by a Redis that is to be asked again after a while
	inFlight []*batch
	loaded   loaded
	later    []func() // to be run once the mutex is free: logging

	parked int         // goroutines that wait for work
	work   chan *batch // holds no more than were parked; closed by Close

	failures int       // batches in a row that failed
	resumeAt time.Time // after failures: send nothing before
	wakeup   bool      // a timer will call kick

	clock  clock
	floor  int64     // the fence is known to be above it
	raised time.Time // when it was last raised to the server's clock, or later
}

// submit hands an op over to be sent once the caller, who holds m.mu, lets go of
// it with exit. So what is submitted together is sent together, and in order.
func (m *LockManager) submit(o *op) {
	m.send.pending = append(m.send.pending, o)
}

// exit unlocks m.mu, sees to it that what was submitted meanwhile is sent, and
// lets the user's log handler take the time that it needs.
func (m *LockManager) exit() {
	m.kick()
	later := m.send.later
	m.send.later = nil
	m.mu.Unlock()
	for _, f := range later {
		f()
	}
}

func (m *LockManager) warn(text string, args ...any) {
	m.send.later = append(m.send.later, func() { m.log.Warn("redislock: "+text, args...) })
}

// kick starts a flush where one is due. The caller holds m.mu.
func (m *LockManager) kick() {
	s := &m.send
	if len(s.pending) == 0 || m.closed { // Close sends what is left
		return
	}
	if len(s.inFlight) >= maxInFlight || !s.resumeAt.IsZero() {
		now := time.Now()
		if wait := s.resumeAt.Sub(now); wait > 0 {
			m.kickIn(wait)
			return
		}
		counted := 0
		for _, b := range s.inFlight {
			if now.Sub(b.began) < stallAfter {
				counted++
			}
		}
		if counted >= maxInFlight || len(s.inFlight) >= maxInFlight+maxStalled {
			m.kickIn(stallAfter)
			return
		}
	}
	s.resumeAt = time.Time{}
	if s.parked > 0 {
		s.parked--
		s.work <- m.takeBatch()
		return
	}
	m.flushes.Add(1)
	go m.flush(m.takeBatch())
}

// kickIn has kick called later, however often it is asked to in the meantime.
func (m *LockManager) kickIn(d time.Duration) {
	if m.send.wakeup {
		return
	}
	m.send.wakeup = true
	time.AfterFunc(d, func() {
		m.mu.Lock()
		defer m.exit()
		m.send.wakeup = false
	})
}

// A batch is what is sent as one pipeline.
type batch struct {
	ops  []*op
	cmds []redis.Cmder

	began   time.Time
	raise   command // raise.lua, if the batch has claims that need it
	floor   int64   // the fence is known to be above it as the claims draw
	extends bool    // has opExtends among its ops
}

// takeBatch makes a batch of all that is pending, but for extensions that are too
// many. The caller holds m.mu.
func (m *LockManager) takeBatch() *batch {
	s := &m.send
	b := &batch{began: time.Now()}
	b.ops, s.pending = s.pending, nil
	if len(b.ops) > maxExtends {
		b.ops, s.pending = divide(b.ops)
	}
	s.inFlight = append(s.inFlight, b)
	b.floor = s.floor
	b.cmds = make([]redis.Cmder, 0, 2*len(b.ops)+1)
	for _, o := range b.ops {
		if o.kind == opClaim && b.raise.Cmd == nil && b.began.Sub(s.raised) > fenceAge {
			b.raise = newCommand(append(raiseScript.appendCall(nil, &s.loaded), 1, fenceKey)...)
			b.cmds = append(b.cmds, b.raise)
		}
		o.sent = b.began
		if o.kind == opExtend {
			b.extends = true
			if o.answer == nil { // a renewal: not beyond the longest hold
				rest := o.lock.renewEnd.Sub(b.began).Truncate(time.Millisecond)
				o.ttl = max(time.Millisecond, min(o.lock.ttl, rest))
			}
		}
		b.cmds = o.appendCommands(b.cmds, m.idArg, &s.loaded)
	}
	if b.extends {
		time.AfterFunc(stallAfter, func() { m.rescue(b) })
	}
	return b
}

// divide leaves all extensions beyond maxExtends for later.
func divide(ops []*op) (now, later []*op) {
	extends := 0
	for _, o := range ops {
		if o.kind == opExtend {
			if extends++; extends > maxExtends {
				later = append(later, o)
				continue
			}
		}
		now = append(now, o)
	}
	return now, later
}

// fenceAge is how far the fence may fall behind the server's clock while tokens
// are drawn by claims: see G10 in docs/protocol.md.
const fenceAge = 10 * time.Millisecond

// flush sends a batch and whatever comes after it. It is started by kick. A few
// are kept for the next time, as growing a new stack each time costs as much as
// a system call; Close ends and joins them.
func (m *LockManager) flush(b *batch) {
	defer m.flushes.Done()
	for b != nil {
		m.sendAll(b)
		b = m.park()
	}
}

// sendAll sends a batch, and then others for as long as there are any.
func (m *LockManager) sendAll(b *batch) {
	for b != nil {
		m.exchange(b)
		b = m.completeBatch(b)
	}
}

// park waits for the next batch. It returns nil if this goroutine is to end.
func (m *LockManager) park() *batch {
	m.mu.Lock()
	if m.closed || m.send.parked == maxInFlight {
		m.mu.Unlock()
		return nil
	}
	m.send.parked++
	m.mu.Unlock()
	return <-m.send.work
}

// exchange sends the batch and reads the replies into its commands.
func (m *LockManager) exchange(b *batch) {
	pipe := m.client.Pipeline()
	_ = pipe.BatchProcess(context.Background(), b.cmds...)
	if _, err := pipe.Exec(context.Background()); err != nil {
		// Each command has its own error, but for some that befall the whole. Where
		// the connection fails half-way, the client stamps its error also on
		// those that were answered before.
		for _, cmd := range b.cmds {
			switch c := cmd.(command); {
			case c.Val() != nil && !isAnswer(c.Err()):
				c.SetErr(nil)
			case c.Err() == nil && c.Val() == nil:
				c.SetErr(&batchError{err})
			}
		}
	}
}

// batchError is why a batch as a whole was not carried out, as far as is known.
type batchError struct{ error }

func (e *batchError) Unwrap() error { return e.error }

// completeBatch takes in the replies and returns the next batch, if there is one.
func (m *LockManager) completeBatch(b *batch) *batch {
	m.mu.Lock()
	defer m.exit()
	s := &m.send
	s.inFlight = slices.DeleteFunc(s.inFlight, func(other *batch) bool { return other == b })
	now := time.Now()
	if b.raise.Cmd != nil {
		m.raised(b, now)
	}

	var again []*op
	failed := false
	for _, o := range b.ops {
		err := o.err()
		switch {
		case isNoScript(err):
			s.loaded = loaded{}
			again = append(again, o)
			continue
		case isUnsettled(err):
			answered := isAnswer(err)
			failed = failed || !answered
			o.attempts++
			o.uncertain = o.uncertain || mayHaveArrived(err) || o.halfDone()
			if !m.tryAgain(o, err, now) {
				break
			}
			if answered {
				m.refuse(o)
			} else {
				again = append(again, o)
			}
			continue
		}
		o.floor = b.floor
		m.complete(o, err, now)
	}
	if failed {
		s.failures++
		if s.failures > 1 {
			s.resumeAt = now.Add(backoff(s.failures))
		}
	} else {
		s.failures, s.resumeAt = 0, time.Time{}
	}
	if len(again) > 0 {
		s.pending = append(again, s.pending...)
	}
	if len(s.pending) == 0 || s.resumeAt.After(now) && !m.closed {
		return nil
	}
	return m.takeBatch()
}

// raised takes in the answer of raise.lua.
func (m *LockManager) raised(b *batch, now time.Time) {
	s := &m.send
	err := b.raise.Err()
	var server time.Duration
	if err == nil {
		server, err = decodeTime(b.raise.Val())
	}
	if err != nil {
		if isNoScript(err) {
			s.loaded = loaded{}
		}
		b.floor = math.MaxInt64 // the claims have drawn from nobody knows what
		return
	}
	s.clock.observe(b.began, now, server)
	b.floor = max(b.floor, server.Microseconds())
	s.floor = max(s.floor, b.floor)
	if b.began.After(s.raised) {
		s.raised = b.began
	}
}

// refuse puts an op aside that Redis was not ready for. Others need not suffer:
// what has no memory for a waiter has some for a release.
func (m *LockManager) refuse(o *op) {
	s := &m.send
	s.refused = append(s.refused, o)
	if len(s.refused) == 1 {
		time.AfterFunc(backoff(o.attempts), func() {
			m.mu.Lock()
			defer m.exit()
			s.pending = append(s.pending, s.refused...)
			s.refused = nil
		})
	}
}

// backoff returns how long to wait after so many failures.
func backoff(failures int) time.Duration {
	d := min(10*time.Millisecond<<min(failures, 10), maxBackoff)
	return d/2 + rand.N(d/2)
}

// rescue sends the extensions of a batch that has stalled again, over another
// connection: the client's time-outs may be longer than the leases. The first
// answer settles it; an extension may be run twice.
func (m *LockManager) rescue(b *batch) {
	m.mu.Lock()
	defer m.exit()
	if m.closed || !slices.Contains(m.send.inFlight, b) {
		return
	}
	for _, o := range b.ops {
		if o.kind == opExtend && o.lock.state == held && !o.copies.settled && o.copies.n < maxCopies {
			o.copies.n++
			m.submit(&op{kind: opExtend, lock: o.lock, ttl: o.ttl, answer: o.answer, copies: o.copies})
		}
	}
}
