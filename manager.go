package redislock

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock/internal/ownvalue"
)

// A LockManager acquires locks in one Redis. A process needs one of them for
// each Redis; its methods may be called from any goroutine.
//
// It has two goroutines that send, more only while a connection is stuck, and
// one that listens to Redis from the first time a caller has to wait; in a
// cluster, for each master. Close ends them all.
type LockManager struct {
	client redis.UniversalClient
	opts   options
	log    *slog.Logger
	id     string // names this manager in queues and channels; no ":" in it
	idArg  any    // the same as an argument of commands

	flushes   sync.WaitGroup  // goroutines that send
	listening sync.WaitGroup  // and those that subscribe
	quit      context.Context // ends when those are to end
	endQuit   func()
	closeDone chan struct{} // closed when Close is done

	mu       sync.Mutex      // guards what follows, and the locks' and lines' fields
	ctx      context.Context // of what is sent; Close ends it for those that wait for a connection
	endCtx   func()
	stopping bool // nobody gets a lock any more: Shutdown or Close was called
	closing  bool // Close has begun
	closed   bool // it has turned all who waited away
	drained  bool // Close has sent what was left: who has more to send does it himself
	closeErr error
	ended    error // the client was closed: what it says
	seq      uint64
	noted    map[string]bool // what the log has said of events that are off
	topology *topology       // nil without a cluster
	quorum   *quorum         // nil without a quorum
	shards   []*shard
	slots    map[uint16]*slot
	touched  []*shard            // exit has to look after them
	later    []func()            // to be run once the mutex is free: logging
	batches  uint64              // how many were made
	tickets  map[uint64]*Lock    // by seq: those that may stand in a queue in Redis, until gone
	named    map[[2]string]*Lock // by key and value: those with a value of the caller's, until gone
	renewals renewals
	holds    holds

	unlocking unlocking
}

// NewLockManager returns a manager that works through client, which it neither
// closes nor configures: of a single Redis, 6.2 or newer, or a server compatible
// with that; of one that Sentinel watches over (redis.NewFailoverClient); or of a
// Redis Cluster, 7.0 or newer (redis.NewClusterClient). All who share locks have
// to come by the same of these ways. A redis.Ring is refused.
//
// Nothing is sent, except with KeyspaceRequired: then it takes up to 5 s to fail where
// Redis does not answer, and else returns at once.
func NewLockManager(client redis.UniversalClient, opts ...Option) (*LockManager, error) {
	m := newManager()
	m.client = client
	if err := m.setUp(opts); err != nil {
		return nil, &Error{callNew, "", err}
	}
	return m, nil
}

func newManager() *LockManager {
	quit, endQuit := context.WithCancel(context.Background())
	ctx, endCtx := context.WithCancel(context.Background())
	return &LockManager{
		ctx:       ctx,
		endCtx:    endCtx,
		quit:      quit,
		endQuit:   endQuit,
		closeDone: make(chan struct{}),
		log:       slog.New(slog.DiscardHandler),
		slots:     make(map[uint16]*slot),
		tickets:   make(map[uint64]*Lock),
		named:     make(map[[2]string]*Lock),
		noted:     make(map[string]bool),
	}
}

func (m *LockManager) setUp(opts []Option) error {
	if isNil(m.client) {
		return invalid("client is nil")
	}
	if isRing(m.client) {
		return invalid("client is a %T, a Ring: it loses track of its keys as servers come and go; use a cluster or a quorum", m.client)
	}
	if err := m.setOptions(opts); err != nil {
		return err
	}
	if m.opts.guard > 0 {
		return invalid("restart guard: only a quorum has a use for it")
	}
	if c, ok := m.client.(cluster); ok {
		m.topology = &topology{cluster: c, byNode: make(map[*redis.Client]*shard)}
		m.newShard(c, nil)
		if m.opts.keyspace == KeyspaceRequired {
			return m.requireOfAll(c)
		}
		return nil
	}
	m.newShard(m.client, m.client)
	if m.opts.keyspace == KeyspaceRequired {
		return m.require(context.Background(), m.client)
	}
	return nil
}

func isNil(client redis.UniversalClient) bool {
	return client == nil || reflect.ValueOf(client).Kind() == reflect.Pointer && reflect.ValueOf(client).IsNil()
}

// isRing tells a redis.Ring, also in a client of another type: which has a method that
// only a Ring has; or, where none but those of a UniversalClient are to be seen, it
// panics if it is to prepare a subscription to no channel, as by that it chooses the
// server. All others send nothing for that.
func isRing(client redis.UniversalClient) (yes bool) {
	switch client.(type) {
	case *redis.Client, cluster:
		return false
	case interface{ SetAddrs(map[string]string) }:
		return true
	}
	defer func() { yes = recover() != nil }()
	_ = client.Subscribe(once).Close()
	return false
}

// setOptions takes in the options, and gives the manager its id.
func (m *LockManager) setOptions(opts []Option) error {
	for _, opt := range opts {
		if opt == nil {
			return invalid("an option is nil")
		}
		if err := opt(&m.opts); err != nil {
			return err
		}
	}
	if err := m.checkReplicas(); err != nil {
		return err
	}
	if m.opts.log != nil {
		m.log = m.opts.log
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return fmt.Errorf("no random id: %w", err)
	}
	m.id = base64.RawURLEncoding.EncodeToString(id[:])
	m.idArg = m.id
	return nil
}

// Lock starts to acquire the key and returns at once; Wait tells the outcome.
// Acquire does both.
// Callers get the lock in the order in which Redis received their requests,
// over all processes. A caller whose turn has not come when ctx ends leaves the
// line. Once acquired, the lock lasts for ttl, whatever becomes of ctx.
//
// The key in Redis is the manager's prefix and key. It may not begin with
// "redislock:". ttl is at least 1 ms; what exceeds whole milliseconds is cut off.
func (m *LockManager) Lock(ctx context.Context, key string, ttl time.Duration, opts ...LockOption) *Lock {
	return m.start(ctx, callLock, key, ttl, opts)
}

// Acquire is Lock and Wait in one: it returns the lock once it is held, or nil and the
// reason why not. It waits for its turn: until ctx ends, or for WithWaitTimeout.
// Arguments are those of Lock.
func (m *LockManager) Acquire(ctx context.Context, key string, ttl time.Duration, opts ...LockOption) (*Lock, error) {
	return m.start(ctx, callAcquire, key, ttl, opts).acquired()
}

// TryLock acquires the key if it is free and nobody waits for it, and fails with
// ErrNotAcquired otherwise. It never waits for a holder, only for Redis's answer.
// Arguments are those of Lock.
func (m *LockManager) TryLock(ctx context.Context, key string, ttl time.Duration, opts ...LockOption) (*Lock, error) {
	return m.start(ctx, callTryLock, key, ttl, opts).acquired()
}

func (l *Lock) acquired() (*Lock, error) {
	if r := l.Wait(); r.Err != nil {
		return nil, r.Err
	}
	return l, nil
}

// Do runs fn while holding the lock: it acquires the key as Lock does, runs fn,
// and releases the lock. The context that fn gets is that of Lock.Context: it is
// cancelled, with Err as the cause, as soon as the lock is lost; fn should stop then.
// FromContext gives fn the lock, and so the fencing token. Without WithAutoRenew
// that is at the latest one ttl after the acquisition.
//
// It returns the reason why the lock was not acquired, or else what fn returned;
// together with ErrLost if the lock was lost meanwhile, or with what the network said
// if it could not be released. Both can be found with errors.Is. It takes as long as
// Acquire, fn and Unlock do.
//
// A call of the same manager for the same key with the context that fn gets would wait for
// fn itself: it fails with ErrReentrant at once, as long as the lock is held.
func (m *LockManager) Do(ctx context.Context, key string, ttl time.Duration, fn func(ctx context.Context) error, opts ...LockOption) error {
	if fn == nil {
		return &Error{callDo, m.opts.prefix + key, invalid("function is nil")}
	}
	l := m.start(ctx, callDo, key, ttl, opts)
	if _, err := l.acquired(); err != nil {
		return err
	}
	return l.run(fn)
}

// TryDo is Do for a key that is free and that nobody waits for: ran tells whether fn
// was run, and err is that of Do. If the key is taken, it returns false and nil. It never
// waits for a holder, only for Redis's answer, and for fn.
func (m *LockManager) TryDo(ctx context.Context, key string, ttl time.Duration, fn func(ctx context.Context) error, opts ...LockOption) (ran bool, err error) {
	if fn == nil {
		return false, &Error{callTryDo, m.opts.prefix + key, invalid("function is nil")}
	}
	l := m.start(ctx, callTryDo, key, ttl, opts)
	if _, err := l.acquired(); err != nil {
		if l.reason() == ErrNotAcquired { //nolint:errorlint // taken, and nothing else
			return false, nil
		}
		return false, err
	}
	return true, l.run(fn)
}

// run runs fn while the lock is held, and releases it.
func (l *Lock) run(fn func(ctx context.Context) error) (err error) {
	defer func() {
		if released := l.unlock(context.Background()); released != nil {
			err = l.doneWith(err, released)
		}
	}()
	ctx, cancel := l.Context(l.ctx)
	defer cancel()
	return fn(ctx)
}

// doneWith returns the error of Do: what fn returned, and what came of the release,
// each said once.
func (l *Lock) doneWith(err, released error) error {
	reason := fmt.Errorf("release failed: %w", released)
	switch lost := l.Err(); {
	case errors.Is(err, lost):
		return err // it tells of the loss already
	case errors.Is(lost, ErrLost):
		reason = l.reason()
	case errors.Is(released, ErrLost):
		reason = causes(ErrLost, errTakenAway) // which only the release has found
	case errors.Is(released, ErrNotHeld):
		return err // fn has released it
	}
	if err != nil {
		reason = fmt.Errorf("%w; the function returned: %w", reason, err)
	}
	return &Error{l.verb, l.key, reason}
}

// Close ends the manager at once: it fails all who wait with ErrClosed, stops renewals,
// also of locks that are in use, and returns when every goroutine of the manager has
// ended. Locks that are held stay held until
// their lease ends, with Done to tell, and can still be unlocked. It returns an
// error if Redis could not be told that the waiters have left; it then finds out
// by itself when it is their turn.
//
// Close takes no more than 2 s. Where Redis has not answered by then it returns an
// error that says so (context.DeadlineExceeded). What still waits for an answer is
// left to end by itself, with the client's time-outs, 5 s at most of a redis.Client;
// what Redis does late until then is undone, but not once the process has ended: a
// key that was just being acquired may then be taken for one TTL.
//
// A service that ends while locks are in use wants Shutdown, which waits for them.
func (m *LockManager) Close() error {
	if err := m.close(); err != nil {
		return &Error{callClose, "", err}
	}
	return nil
}

func (m *LockManager) close() error {
	m.mu.Lock()
	if m.closing {
		m.mu.Unlock()
		<-m.closeDone
		return nil
	}
	defer close(m.closeDone)
	m.closing, m.stopping = true, true
	m.turnAway()
	m.closed = true
	m.forgetLeavers()
	for _, s := range m.shards {
		close(s.work)
	}
	m.holds.stopUnused()
	m.renewals.stop()
	m.allLines(func(ln *line) {
		if ln.timer != nil {
			ln.timer.Stop()
		}
	})
	m.exit()

	return m.endAll()
}

const (
	// closeWithin is how long Close takes at most.
	closeWithin = 1900 * time.Millisecond

	// closeWaits is how long Close waits for what is under way before it sends over
	// other connections what is left.
	closeWaits = closeWithin / 2
)

// endAll has Redis told what it has to know, and ends and joins the goroutines, as far as
// that can be done in time.
func (m *LockManager) endAll() error {
	within, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	firstHalf, cancel := context.WithTimeout(within, closeWaits)
	defer cancel()

	answered := joins(firstHalf, m.flushes.Wait)
	m.mu.Lock()
	m.drained = true
	if !answered {
		m.foresee()
	}
	m.mu.Unlock()
	ended := joins(within, m.drain)

	m.endQuit()
	ended = joins(within, func() {
		for _, s := range m.shards {
			s.events.close()
		}
		m.listening.Wait()
	}) && ended
	ended = joins(within, m.flushes.Wait) && ended

	m.mu.Lock()
	defer m.mu.Unlock()
	m.endCtx()
	m.ctx = context.Background() // of what follows from answers that are still to come
	if !ended && m.closeErr == nil && !m.settled() {
		m.closeErr = noAnswerWithin(closeWithin)
	}
	return m.closeErr
}

// turnAway fails all who wait, a number at a time: others have something to do
// meanwhile. The caller holds m.mu, and has seen to it that nobody comes in.
func (m *LockManager) turnAway() {
	var lines []*line
	m.allLines(func(ln *line) { lines = append(lines, ln) })
	n := 0
	for _, ln := range lines {
		for ln.first != nil {
			m.abandon(ln.first, ErrClosed)
			if n++; n%maxBatch == 0 {
				m.exit()
				m.mu.Lock()
			}
		}
	}
}

// settled tells whether all requests were answered that matter, of a quorum by enough
// nodes. The caller holds m.mu.
func (m *LockManager) settled() bool {
	idle := 0
	for _, s := range m.shards {
		owes := s.backlog()+s.refused.length > 0
		for _, b := range s.inFlight {
			for _, o := range b.ops {
				matters := o.kind != opExtend && o.kind != opProbe
				owes = owes || matters && (o.copies == nil || !o.copies.settled)
			}
		}
		if !owes {
			idle++
		}
	}
	if m.quorum != nil {
		return idle >= m.quorum.majority
	}
	return idle == len(m.shards)
}

// foresee releases what acquires may take that have not been answered: this process
// may end before they are. If they are, what they have taken is released once more.
// The caller holds m.mu.
func (m *LockManager) foresee() {
	if m.quorum != nil {
		return
	}
	for _, s := range m.shards {
		for _, b := range s.inFlight {
			for _, o := range b.ops {
				if l := o.lock; o.acquires() && l.state == leaving && l.inFlight && !l.hasChosenValue() {
					x := m.ghostOf(l)
					x.joined = o.join || l.joined
					m.submit(&op{kind: opRelease, lock: x})
				}
			}
		}
	}
}

// drain sends what is left, now that the senders have ended.
func (m *LockManager) drain() {
	for {
		var senders sync.WaitGroup
		idle := true
		m.mu.Lock()
		for _, s := range m.shards {
			s.sendRefused()
		}
		for _, s := range m.shards {
			if b := s.takeBatch(); b != nil { // else there is nothing, or it has to come after what is under way
				idle = false
				senders.Go(func() { s.sendAll(b) })
			}
		}
		m.mu.Unlock()
		if idle {
			return
		}
		senders.Wait()
	}
}

// start makes a Lock and puts it on its way.
func (m *LockManager) start(ctx context.Context, verb, name string, ttl time.Duration, opts []LockOption) *Lock {
	l := &Lock{
		manager: m,
		verb:    verb,
		key:     m.opts.prefix + name,
		ctx:     ctx,
		ttl:     ttl.Truncate(time.Millisecond),
		began:   time.Now(),
		outcome: newOutcome(),
		try:     tries(verb),
		heapAt:  -1,
	}
	var around *holding
	err := m.parse(ctx, verb, name, ttl, opts, &l.options)
	if err == nil && ctx.Err() != nil {
		err = contextError(ctx, nil)
	}
	l.value = l.options.value
	if l.value == "" && err == nil {
		l.value, err = ownvalue.New(ctx)
	}
	if err == nil {
		around = holdingOf(ctx)
	}
	l.valueArg, l.ttlArg = l.value, l.ttl.Milliseconds()

	m.mu.Lock()
	defer m.exit()
	if err == nil {
		err = m.admit(l, around)
	}
	if err != nil {
		l.state = gone
		l.setErr(err)
		l.outcome.tell(Result{Err: l.err})
		return l
	}
	if l.try {
		m.unlocking.try(m, l, l.began)
	}
	l.heed(ctx)
	if m.quorum != nil {
		m.enter(l)
	} else if l.try && l.line.seemsFree(l.began) {
		m.claim(l)
	} else if l.try {
		m.sendAcquire(&op{kind: opAcquire, lock: l})
	} else {
		if l.line.unsent == nil {
			l.line.unsent = l
		}
		m.pump(l.line, l.began)
	}
	return l
}

// admit gives the lock its place in the line here, unless it may not have one. around
// is what its context says of other locks.
func (m *LockManager) admit(l *Lock, around *holding) error {
	if m.stopping {
		return ErrClosed
	}
	if m.ended != nil {
		return m.ended
	}
	if m.reentrant(l.key, around, l.began) {
		if l.try {
			return causes(ErrNotAcquired, ErrReentrant)
		}
		return ErrReentrant
	}
	if ln := m.slotOf(l.key).lines[l.key]; ln != nil && m.opts.maxQueue > 0 && !l.try {
		queued := ln.length
		if ln.claiming || m.quorum != nil && ln.mayBeFree() {
			queued-- // may well get it
		}
		if queued >= m.opts.maxQueue {
			return ErrQueueFull
		}
	}
	if l.options.value != "" {
		name := [2]string{l.key, l.value}
		if other := m.named[name]; other != nil {
			other.checkLease(l.began)
		}
		if m.named[name] != nil {
			return invalid("owner value is in use by another lock on this key")
		}
	}
	if l.options.value != "" || m.quorum != nil {
		m.named[[2]string{l.key, l.value}] = l
	}
	m.number(l)
	l.line = m.lineOf(l.key)
	if !l.try {
		l.line.push(l)
	}
	return nil
}

// heed has the wait end with ctx, or after WithWaitTimeout. leaveLine calls stopCtx.
func (l *Lock) heed(ctx context.Context) {
	if ctx.Done() != nil {
		l.stopCtx = context.AfterFunc(ctx, l.contextEnded)
	}
	if l.options.wait > 0 {
		timer, stop := time.AfterFunc(l.options.wait, l.waitedEnough), l.stopCtx
		l.stopCtx = func() bool {
			if stop != nil {
				stop()
			}
			return timer.Stop()
		}
	}
}

func (l *Lock) waitedEnough() {
	m := l.manager
	m.mu.Lock()
	defer m.exit()
	if l.state != waiting {
		return
	}
	reasons := []error{ErrNotAcquired, fmt.Errorf("its turn did not come within %v", l.options.wait)}
	if l.failure != nil {
		reasons = append(reasons, l.failure)
	}
	m.abandon(l, causes(reasons...))
}

func (l *Lock) contextEnded() {
	m := l.manager
	m.mu.Lock()
	defer m.exit()
	if l.state == waiting {
		m.abandon(l, contextError(l.ctx, l.failure))
	}
}
