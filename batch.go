package redislock

import (
	"context"
	"math"
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

	// stallAfter is when a batch no longer counts: its connection may be dead,
	// and what comes after it is sent over another one.
	stallAfter = 250 * time.Millisecond

	// maxExtends is how many extensions go out together. All that a manager has to
	// renew at a time may be more than is answered before the batch counts as
	// stalled; and others have to wait for it.
	maxExtends = 500

	// maxVotes is how many requests go out together to a node of a quorum, which has
	// a fraction of the lease to answer.
	maxVotes = 100

	// maxStalled bounds the batches that no longer count.
	maxStalled = 6

	maxBackoff = 500 * time.Millisecond
)

// A sender is the part of a shard that talks to it. Guarded by the manager's
// mutex.
type sender struct {
	pending  []*op
	refused  []*op // by a Redis that is to be asked again after a while
	inFlight []*batch
	loaded   loaded

	parked int         // goroutines that wait for work
	work   chan *batch // holds no more than were parked; nil: to be taken in person; closed by Close
	waking bool        // a goroutine is about to do that

	failures int       // batches in a row that failed
	resumeAt time.Time // after failures: send nothing before
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
	s.pending = append(s.pending, o)
	s.touch()
}

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

func (m *LockManager) warn(text string, args ...any) {
	m.later = append(m.later, func() { m.log.Warn("redislock: "+text, args...) })
}

// kick starts a flush where one is due. What nobody else waits for, and what is not
// the only request, lets those run first who may have something to send along: a few
// callers at a time make fewer and larger batches so. The caller holds m.mu.
func (s *shard) kick() {
	if !s.mayStart() {
		return
	}
	patient := len(s.inFlight) > 0 && !slices.ContainsFunc(s.pending, (*op).urgent)
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
	if len(s.pending) == 0 || s.m.closed { // Close sends what is left
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
		if counted >= maxInFlight || len(s.inFlight) >= maxInFlight+maxStalled {
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
		if now.Sub(b.began) >= stallAfter {
			n++
		}
	}
	return n
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

// A batch is what is sent as one pipeline.
type batch struct {
	ops  []*op
	cmds []redis.Cmder
	args []any // of all commands, in one piece of memory

	began   time.Time
	raises  []*raise // one for each fence that claims of the batch need it for
	draws   []*draw
	follow  bool    // has an op that has to follow a redirection
	rescued bool    // its ops were sent again
	wait    command // WAIT for replicas, if they matter to what the batch writes
}

// A raise is a call of raise.lua, ahead of the claims that draw from the fence.
type raise struct {
	slot  *slot
	cmd   command
	floor int64 // the fence is above it as the claims draw
}

// A draw is the INCRBY that draws the tokens of several claims. It comes after them:
// each has the key by then, or will not use its token.
type draw struct {
	slot *slot
	n    int // tokens
	cmd  command
}

// maxDraws bounds how many claims draw together. The fewer, the less can come between
// a claim and its token: see G10 in docs/protocol.md.
const maxDraws = 32

// takeBatch makes a batch of all that is pending, but for extensions that are too
// many. The caller holds m.mu.
func (s *shard) takeBatch() *batch {
	b := &batch{began: time.Now()}
	b.ops, s.pending = s.pending, nil
	if s.m.quorum != nil && !s.m.closed && len(b.ops) > maxVotes {
		b.ops, s.pending = b.ops[:maxVotes:maxVotes], b.ops[maxVotes:]
	}
	if len(b.ops) > maxExtends {
		b.ops, s.pending = divide(b.ops)
	}
	s.inFlight = append(s.inFlight, b)
	b.follow = slices.ContainsFunc(b.ops, func(o *op) bool { return o.follow })
	b.cmds = make([]redis.Cmder, 0, len(b.ops)+4)
	b.args = make([]any, 0, argsOf(b.ops))
	s.freeTogether(b)
	for _, o := range b.ops {
		o.sent = b.began
		switch o.kind {
		case opRelease:
			if o.simple {
				continue
			}
		case opClaim:
			s.raiseFence(b, o)
			b.drawFor(o)
		case opExtend:
			if o.answer == nil { // a renewal: not beyond the longest hold
				rest := o.lock.renewEnd.Sub(b.began).Truncate(time.Millisecond)
				o.ttl = max(time.Millisecond, min(o.lock.ttl, rest))
			}
		}
		o.cmd = b.add(o.appendArgs(b.args, s.m.idArg, s.scriptsAt(b)))
		if o.kind == opClaim && o.draw.n == maxDraws {
			b.addDraw(o.draw)
		}
	}
	for _, d := range b.draws {
		if d.cmd.Cmd == nil {
			b.addDraw(d)
		}
	}
	s.askReplicas(b)
	if !s.watching {
		s.watchIn(stallAfter)
	}
	return b
}

// argsOf returns how many arguments the ops have, about: with what goes before and
// after claims.
func argsOf(ops []*op) int {
	n := 8
	for _, o := range ops {
		switch {
		case o.simple:
			n += 3
		case o.kind == opClaim:
			n += 6
		default:
			n += 16
		}
	}
	return n
}

// add adds the command that was appended to the arguments.
func (b *batch) add(args []any) command {
	cmd := newCommand(args[len(b.args):len(args):len(args)]...)
	b.cmds, b.args = append(b.cmds, cmd), args
	return cmd
}

// drawFor has a token drawn for a claim.
func (b *batch) drawFor(o *op) {
	sl := o.lock.line.slot
	at := slices.IndexFunc(b.draws, func(d *draw) bool { return d.slot == sl && d.n < maxDraws })
	if at < 0 {
		at = len(b.draws)
		b.draws = append(b.draws, &draw{slot: sl})
	}
	o.draw = b.draws[at]
	o.draw.n++
	o.place = o.draw.n
}

func (b *batch) addDraw(d *draw) { d.cmd = b.add(append(b.args, "incrby", d.slot.fence, d.n)) }

// maxFrees bounds how many locks are released by one call, which Redis does in some
// 0.2 ms.
const maxFrees = 100

// freeTogether has the simple releases of the batch done by as few calls as can be.
// They go first, and so never after a claim that counts on them.
func (s *shard) freeTogether(b *batch) {
	var calls [][]*op // of one slot each
	for _, o := range b.ops {
		if o.kind != opRelease || !o.simple {
			continue
		}
		at := slices.IndexFunc(calls, func(ops []*op) bool {
			return ops[0].lock.line.slot == o.lock.line.slot && len(ops) < maxFrees
		})
		if at < 0 {
			at = len(calls)
			calls = append(calls, nil)
		}
		calls[at] = append(calls[at], o)
		o.place = len(calls[at])
	}
	for _, ops := range calls {
		cmd := b.add(appendFree(b.args, ops, s.scriptsAt(b)))
		for _, o := range ops {
			o.cmd = cmd
		}
	}
}

// scriptsAt returns which scripts are known where the batch goes. Where it is
// redirected to none may be, and a raise that fails costs its claims dearly.
func (s *shard) scriptsAt(b *batch) *loaded {
	if b.follow {
		return new(loaded)
	}
	return &s.loaded
}

// raiseFence has the fence raised before a claim, unless it was of late.
func (s *shard) raiseFence(b *batch, o *op) {
	sl := o.lock.line.slot
	o.raise, o.floor = nil, sl.floor
	if b.began.Sub(sl.raised) <= fenceAge {
		return
	}
	for _, r := range b.raises {
		if r.slot == sl {
			o.raise = r
			return
		}
	}
	o.raise = &raise{
		slot: sl, floor: sl.floor,
		cmd: b.add(append(raiseScript.appendCall(b.args, s.scriptsAt(b)), 1, sl.fence)),
	}
	b.raises = append(b.raises, o.raise)
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
	pipe := s.client.Pipeline()
	if s.node != nil && !b.follow {
		pipe = s.node.Pipeline() // the shorter way
	}
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
func (s *shard) completeBatch(b *batch) *batch {
	m := s.m
	m.mu.Lock()
	defer m.exit()
	s.inFlight = slices.DeleteFunc(s.inFlight, func(other *batch) bool { return other == b })
	now := time.Now()
	for _, r := range b.raises {
		s.fenceRaised(b, r, now)
	}

	var again []*op
	failed := false
	for _, o := range b.ops {
		err := o.err()
		switch {
		case o.acquires() && o.copies != nil && !m.settles(o, err):
			failed = failed || isUnsettled(err) && !isAnswer(err)
			continue
		case isNoScript(err):
			s.loaded = loaded{}
			again = append(again, o)
			continue
		case isUnsettled(err) && !m.strayed(err):
			answered := isAnswer(err)
			failed = failed || !answered
			o.attempts++
			o.uncertain = o.uncertain || mayHaveArrived(err) || o.halfDone()
			redirected := isRedirection(err) && !o.follow
			o.follow = isRedirection(err)
			if !m.tryAgain(o, err, now) {
				break
			}
			if answered && !redirected {
				s.refuse(o)
			} else {
				again = append(again, o)
			}
			continue
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
	}
	if len(again) > 0 {
		s.pending = append(again, s.pending...)
	}
	if len(s.pending) == 0 || s.resumeAt.After(now) && !m.closed {
		s.touch()
		return nil
	}
	return s.takeBatch()
}

// fenceRaised takes in the answer of raise.lua.
func (s *shard) fenceRaised(b *batch, r *raise, now time.Time) {
	err := r.cmd.Err()
	var server time.Duration
	if err == nil {
		server, err = decodeTime(r.cmd.Val())
	}
	if err != nil {
		if isNoScript(err) {
			s.loaded = loaded{}
		}
		r.floor = math.MaxInt64 // the claims have drawn from nobody knows what
		return
	}
	s.clock.observe(b.began, now, server)
	r.floor = max(r.floor, server.Microseconds())
	r.slot.floor = max(r.slot.floor, r.floor)
	if b.began.After(r.slot.raised) {
		r.slot.raised = b.began
	}
}

// refuse puts an op aside that Redis was not ready for. Others need not suffer:
// what has no memory for a waiter has some for a release.
func (s *shard) refuse(o *op) {
	s.m.topology.unsettled(s.m)
	s.refused = append(s.refused, o)
	if len(s.refused) == 1 {
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
	refused := s.refused
	s.refused = nil
	for _, o := range refused {
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
