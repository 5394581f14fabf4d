package redislock

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"runtime"
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

	// maxStalled bounds the batches that no longer count, as long as none has been
	// waited for for long.
	maxStalled = 6

	// maxPlaces bounds all batches that are under way. Beyond maxInFlight+maxStalled there is one
	// more place for each two stalls that the oldest of them has lasted: whatever hangs
	// for how long, what has to be sent is, and yet not so much that it crowds out an
	// application.
	maxPlaces = 64

	maxBackoff = 500 * time.Millisecond

	// tellAfter is for how long a request has been failing when the log says so, which
	// it does once a minute at most.
	tellAfter = 2500 * time.Millisecond
	tellAgain = time.Minute
)

// A sender is the part of a shard that talks to it. Guarded by the manager's
// mutex.
type sender struct {
	pending  opList // to be sent
	extends  opList // likewise: extensions, but for those of a quorum
	urgent   bool   // some of that others may wait for
	refused  opList // by a Redis that is to be asked again after a while
	inFlight []*batch
	loaded   loaded

	roundTrip roundTrip

	parked int         // goroutines that wait for work
	work   chan *batch // holds no more than were parked; nil: to be taken in person; closed by Close
	waking bool        // a goroutine is about to do that

	proven   bool      // the server lets us run scripts, on the side keys too
	failures int       // batches in a row that failed
	resumeAt time.Time // after failures: send nothing before
	toldAt   time.Time // when the log last said that requests are not served
	ended    bool      // the client was closed
	wakeup   bool      // a timer will call kick
	watching bool      // and one watchBatches
}

func (s *sender) init() { s.work = make(chan *batch, maxInFlight) }

// submit hands an op over to be sent once the caller, who holds m.mu, lets go of
// it with exit. So what is submitted together is sent together, and in order.
func (m *LockManager) submit(o *op) {
	if m.quorum != nil && o.kind == opExtend && o.vote == nil {
		m.voteOnExtension(o)
		return
	}
	s := m.shardFor(o)
	s.queueOf(o).push(o)
	s.urgent = s.urgent || o.urgent()
	s.touch()
}

// queueOf returns where an op waits until it is sent.
func (s *shard) queueOf(o *op) *opList {
	if o.kind == opExtend && s.m.quorum == nil {
		return &s.extends
	}
	return &s.pending
}

// backlog returns how many ops are to be sent.
func (s *sender) backlog() int { return s.extends.length + s.pending.length }

// touch has exit look after the shard.
func (s *shard) touch() {
	if !s.touched {
		s.touched = true
		s.m.touched = append(s.m.touched, s)
	}
}

// exit unlocks m.mu, sees to it that what was submitted meanwhile is sent, and
// lets the user's log handler take the time that it needs.
func (m *LockManager) exit() {
	for _, s := range m.touched {
		s.touched = false
		s.kick()
	}
	m.touched = m.touched[:0]
	later := m.later
	m.later = nil
	m.mu.Unlock()
	for _, f := range later {
		f()
	}
}

func (m *LockManager) warn(text string, args ...any) { m.logLater(slog.LevelWarn, text, args) }

func (m *LockManager) logLater(level slog.Level, text string, args []any) {
	m.later = append(m.later, func() { m.log.Log(context.Background(), level, "redislock: "+text, args...) })
}

// kick starts a flush where one is due. What nobody else waits for, and what is not
// the only request, lets those run first who may have something to send along: a few
// callers at a time make fewer and larger batches so. The caller holds m.mu.
func (s *shard) kick() {
	if !s.mayStart() {
		return
	}
	patient := len(s.inFlight) > 0 && !s.urgent
	if patient && s.waking {
		return
	}
	if s.parked == 0 {
		s.m.flushes.Add(1)
		go s.flush(s.takeBatch())
		return
	}
	s.parked--
	if patient {
		s.waking = true
		s.work <- nil
		return
	}
	s.work <- s.takeBatch()
}

// mayStart tells whether something can be sent now. If it may be later, kick will
// be called then. The caller holds m.mu.
func (s *shard) mayStart() bool {
	if s.backlog() == 0 || s.m.closed { // Close sends what is left
		return false
	}
	if len(s.inFlight) >= maxInFlight || !s.resumeAt.IsZero() {
		now := time.Now()
		if wait := s.resumeAt.Sub(now); wait > 0 {
			s.kickIn(wait)
			return false
		}
		counted := len(s.inFlight) - s.overdue(now)
		if counted < len(s.inFlight) {
			s.m.topology.unsettled(s.m)
		}
		if counted >= maxInFlight || len(s.inFlight) >= s.places(now) {
			s.kickIn(stallAfter)
			return false
		}
	}
	s.resumeAt = time.Time{}
	return true
}

// overdue returns how many batches have stalled.
func (s *sender) overdue(now time.Time) (n int) {
	for _, b := range s.inFlight {
		if !now.Before(s.dueBy(b)) {
			n++
		}
	}
	return n
}

// places returns how many batches may be under way, stalled ones included.
func (s *sender) places(now time.Time) int {
	n := maxInFlight + maxStalled
	if len(s.inFlight) > 0 {
		n += int(now.Sub(s.inFlight[0].began) / (2 * s.roundTrip.stretch(stallAfter)))
	}
	return min(n, maxPlaces)
}

// kickIn has kick called later, however often it is asked to in the meantime.
func (s *shard) kickIn(d time.Duration) {
	if s.wakeup {
		return
	}
	s.wakeup = true
	time.AfterFunc(d, func() {
		s.m.mu.Lock()
		defer s.m.exit()
		s.wakeup = false
		s.touch()
	})
}

// flush sends a batch and whatever comes after it. It is started by kick. A few
// are kept for the next time, as growing a new stack each time costs as much as
// a system call; Close ends and joins them.
func (s *shard) flush(b *batch) {
	defer s.m.flushes.Done()
	for b != nil {
		s.sendAll(b)
		b = s.park()
	}
}

// sendAll sends a batch, and then others for as long as there are any.
func (s *shard) sendAll(b *batch) {
	for b != nil {
		s.exchange(b)
		b = s.completeBatch(b)
	}
}

// park waits for the next batch. It returns nil if this goroutine is to end.
func (s *shard) park() *batch {
	m := s.m
	for {
		m.mu.Lock()
		if m.closed || s.parked == maxInFlight {
			m.mu.Unlock()
			return nil
		}
		s.parked++
		m.mu.Unlock()
		b, ok := <-s.work
		if !ok || b != nil {
			return b
		}
		runtime.Gosched()
		m.mu.Lock()
		s.waking = false
		if s.mayStart() { // else others have sent it, or will
			b = s.takeBatch()
		}
		m.exit()
		if b != nil {
			return b
		}
	}
}

// exchange sends the batch and reads the replies into its commands.
func (s *shard) exchange(b *batch) {
	client := s.client
	if s.node != nil && !b.follow {
		client = s.node // the shorter way
	}
	pipe := patient(client, maxAnswerTime, s.waitTime(b)).Pipeline()
	first := b.cmds[0].(command)
	b.cmds[0] = noted{first, b.began, &b.written}
	_ = pipe.BatchProcess(b.ctx, b.cmds...)
	if _, err := pipe.Exec(b.ctx); err != nil {
		// Each command has its own error, but for some that befall the whole. Where
		// the connection fails half-way, the client stamps its error also on
		// those that were answered before.
		for _, cmd := range b.cmds {
			switch c := cmd.(interface {
				redis.Cmder
				Val() any
			}); {
			case c.Val() != nil && !isAnswer(c.Err()):
				c.SetErr(nil)
			case c.Err() == nil && c.Val() == nil:
				c.SetErr(inSetUp(err)) // the client leaves its commands alone then
			default:
				c.SetErr(withoutRequest(c.Err()))
			}
		}
	}
}

// completeBatch takes in the replies and returns the next batch, if there is one.
func (s *shard) completeBatch(b *batch) *batch {
	m := s.m
	m.mu.Lock()
	defer m.exit()
	s.inFlight = slices.DeleteFunc(s.inFlight, func(other *batch) bool { return other == b })
	now := time.Now()
	if b.answered() {
		s.roundTrip.observe(now.Sub(b.began), now)
	}
	for _, r := range b.raises {
		s.fenceRaised(b, r, now)
	}

	var again []*op
	failed := false
	for _, o := range b.ops {
		err := o.err()
		if b.ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = ErrClosed // by Close: no caller's context goes with a batch
		}
		o.failure = classify(err)
		s.proven = s.proven && !isDenied(err)
		if o.failure == clientEnded {
			if s.mayFollow(b) { // the cluster's client closes those of servers that have left it
				s.mayHaveMoved(o, err)
				o.follow = true
				again = append(again, o)
				continue
			}
			m.clientClosed(s, err)
		}
		switch {
		case (o.acquires() || o.kind == opRelease) && o.copies != nil && !m.settles(o, err):
			failed = failed || !o.failure.settled() && !o.failure.refused()
			continue
		case o.failure == noScript:
			s.loaded = loaded{}
			again = append(again, o)
			continue
		case !o.failure.settled() && !m.strayed(err):
			refused := o.failure.refused()
			failed = failed || !refused
			s.amiss(o, err, now)
			o.attempts++
			o.uncertain = o.uncertain || o.failure.mayHaveRun() || o.halfDone()
			o.lock.own = o.lock.own || o.acquires() && (o.failure.mayHaveRun() || o.halfDone())
			redirected := o.failure == elsewhere && !o.follow
			s.mayHaveMoved(o, err)
			o.follow = o.failure == elsewhere
			if o.acquires() {
				m.unreached(o.lock, s.reached(), o.failure == unsent, now)
			}
			if !m.tryAgain(o, err, now) {
				break
			}
			if refused && !redirected {
				s.refuse(o)
			} else {
				again = append(again, o)
			}
			continue
		}
		if o.acquires() {
			o.lock.unreached = false
		}
		o.replicas = b.replicas()
		if o.raise != nil {
			o.floor = o.raise.floor
		}
		m.complete(o, s, err, now)
	}
	if failed {
		m.topology.unsettled(m)
		s.failures++
		if s.failures > 1 {
			s.resumeAt = now.Add(backoff(s.failures))
		}
	} else {
		s.failures, s.resumeAt = 0, time.Time{}
		m.topology.heard()
		if s.events.doubted {
			s.events.probeAll(now)
		}
	}
	for _, o := range slices.Backward(again) {
		s.queueOf(o).pushFirst(o)
		s.urgent = s.urgent || o.urgent()
	}
	b.submitBehind(m)
	if s.backlog() == 0 || s.resumeAt.After(now) && !m.closed {
		s.touch()
		return nil
	}
	return s.takeBatch()
}

// amiss takes in that an op failed which may be served yet, and tells of it once that
// has gone on for long.
func (s *shard) amiss(o *op, err error, now time.Time) {
	if o.since.IsZero() {
		o.since = now
	}
	if now.Sub(o.since) < tellAfter || now.Sub(s.toldAt) < tellAgain {
		return
	}
	s.toldAt = now
	s.m.warn("requests are not served, and are sent again", "error", err,
		"for", now.Sub(o.since).Round(100*time.Millisecond), "waiting for", o.failure.awaited())
}

// mayFollow tells whether the cluster's client may know better where to send what
// the client of one of its servers was closed for.
func (s *shard) mayFollow(b *batch) bool {
	return s.m.topology != nil && s.node != nil && !b.follow
}

// clientClosed: nothing can be sent any more through the client of this shard, nor will
// ever be. Where the others are no majority, nobody can be served: all who wait
// are told.
func (m *LockManager) clientClosed(s *shard, err error) {
	s.ended = true
	if m.ended != nil || m.quorum != nil && m.open() >= m.quorum.majority {
		return
	}
	m.ended = err
	m.warn("the client was closed before the manager: nothing can be acquired, renewed or released", "error", err)
	m.renewals.stop()
	m.allLines(func(ln *line) {
		for ln.first != nil {
			m.abandon(ln.first, err)
		}
	})
}

// open returns how many shards have a client that was not closed, as far as is known.
func (m *LockManager) open() (n int) {
	for _, s := range m.shards {
		if !s.ended {
			n++
		}
	}
	return n
}

// refuse puts an op aside that Redis was not ready for. Others need not suffer:
// what has no memory for a waiter has some for a release.
func (s *shard) refuse(o *op) {
	s.m.topology.unsettled(s.m)
	s.refused.push(o)
	if s.refused.length == 1 {
		time.AfterFunc(backoff(o.attempts), func() {
			s.m.mu.Lock()
			defer s.m.exit()
			s.sendRefused()
		})
	}
}

// sendRefused sends what was put aside, but for acquires whose callers have gone
// meanwhile.
func (s *shard) sendRefused() {
	m, now := s.m, time.Now()
	for range s.refused.length {
		o := s.refused.pop()
		if o.acquires() && o.lock.state != waiting {
			m.complete(o, s, o.lock.failure, now)
		} else {
			m.submit(o) // its slot may have moved
		}
	}
}

// backoff returns how long to wait after so many failures.
func backoff(failures int) time.Duration {
	d := min(10*time.Millisecond<<min(failures, 10), maxBackoff)
	return d/2 + rand.N(d/2)
}
