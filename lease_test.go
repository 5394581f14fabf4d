package redislock_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
)

// A bubble is a Redis, a client and a manager in fake time. Sleeping costs
// nothing, and synctest.Wait returns when all that can happen now has happened.
type bubble struct {
	server  *miniredis.Miniredis
	client  *redis.Client
	manager *redislock.LockManager
	frozen  atomic.Bool                // nothing gets through any more, in either direction
	deaf    atomic.Bool                // connections end when they subscribe
	ear     atomic.Pointer[bubbleConn] // the connection that subscribed last

	// linesLeft, if above 0, is how many more lines of replies come through. With the
	// last of them its connection ends, and nothing gets through any more.
	linesLeft atomic.Int64

	delay   atomic.Int64 // ns, of all that is written, and of each dial
	refused atomic.Bool  // no connection is to be had
	hole    atomic.Bool  // nor does anybody answer who dials

	mu    sync.Mutex
	conns []*bubbleConn // all that ever were

	options func(*redis.Options) // of the client, before it is made; may be nil
	wrapped bool                 // the manager gets the client in a type of its own
	own     []redislock.Option   // of the manager
}

// inBubble runs a test in a bubble.
func inBubble(t *testing.T, test func(t *testing.T, b *bubble)) {
	inBubbleOf(t, &bubble{}, test)
}

// inBubbleOf runs a test in a bubble of the given kind.
func inBubbleOf(t *testing.T, b *bubble, test func(t *testing.T, b *bubble)) {
	synctest.Test(t, func(t *testing.T) {
		b.server = miniredis.NewMiniRedis()
		b.server.ClockTTL(true)
		defer time.Sleep(10 * time.Minute) // for goroutines of the client that end by and by
		defer b.server.Close()
		b.begin(t)
		defer b.end(t) // also after a failure, as goroutines that are left are a panic
		test(t, b)
	})
}

// begin makes a manager, with a client of its own.
func (b *bubble) begin(t *testing.T) {
	options := &redis.Options{
		Addr:   "127.0.0.1:1", // an address, so that nothing is looked up
		Dialer: b.dial,
	}
	if b.options != nil {
		b.options(options)
	}
	b.client = redis.NewClient(options)
	var err error
	b.manager, err = redislock.NewLockManager(b.asWrapped(b.client), b.own...)
	require.NoError(t, err)
}

// asWrapped returns the client as the manager gets it.
func (b *bubble) asWrapped(client *redis.Client) redis.UniversalClient {
	if b.wrapped {
		return wrappedClient{client}
	}
	return client
}

// A wrappedClient is what programs pass that count or trace what they send.
type wrappedClient struct{ redis.UniversalClient }

func (b *bubble) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	time.Sleep(time.Duration(b.delay.Load()))
	if b.hole.Load() {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
	}
	if b.refused.Load() {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	conn, err := b.server.Dial()
	if err != nil {
		return nil, err
	}
	c := newBubbleConn(conn, b)
	b.conns = append(b.conns, c)
	return c, nil
}

// silence has all connections swallow what is written from here on. New ones work.
func (b *bubble) silence() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.silent.Store(true)
	}
}

func (b *bubble) end(t *testing.T) {
	b.frozen.Store(false)
	assert.NoError(t, b.manager.Close())
	assert.NoError(t, b.client.Close())
}

// another is another process in the same bubble.
func (b *bubble) another(t *testing.T) *bubble {
	other := &bubble{server: b.server}
	other.begin(t)
	t.Cleanup(func() { other.end(t) })
	return other
}

// bubbleConn swallows what is written to a frozen server. And it has a buffer,
// as sockets have and net.Pipe has not: a client that writes a long pipeline
// does not read, and a server that answers meanwhile must not wait for it.
type bubbleConn struct {
	net.Conn
	bubble  *bubble
	written chan []byte
	ended   chan struct{}
	closed  sync.Once
	silent  atomic.Bool
}

func newBubbleConn(conn net.Conn, b *bubble) *bubbleConn {
	c := &bubbleConn{Conn: conn, bubble: b, written: make(chan []byte, 1000), ended: make(chan struct{})}
	go func() {
		for {
			select {
			case p := <-c.written:
				time.Sleep(time.Duration(b.delay.Load()))
				_, _ = conn.Write(p)
			case <-c.ended:
				return
			}
		}
	}()
	return c
}

func (c *bubbleConn) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("subscribe\r\n")) {
		if c.bubble.deaf.Load() {
			_ = c.Close()
			return 0, net.ErrClosed
		}
		c.bubble.ear.Store(c)
	}
	if !c.bubble.frozen.Load() && !c.silent.Load() {
		select {
		case c.written <- bytes.Clone(p):
		case <-c.ended:
			return 0, net.ErrClosed
		}
	}
	return len(p), nil
}

func (c *bubbleConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	for at, char := range p[:n] {
		if char == '\n' && c.bubble.linesLeft.Load() > 0 && c.bubble.linesLeft.Add(-1) == 0 {
			c.bubble.frozen.Store(true)
			_ = c.Conn.Close()
			return at + 1, nil
		}
	}
	return n, err
}

// deafen ends the last subscription, and others from here on.
func (b *bubble) deafen() {
	b.deaf.Store(true)
	_ = b.ear.Load().Conn.Close()
}

// moveTo has connections lead to another server from now on, and ends all but the one
// that subscribed last.
func (b *bubble) moveTo(server *miniredis.Miniredis) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.server = server
	for _, c := range b.conns {
		if c != b.ear.Load() {
			_ = c.Conn.Close()
		}
	}
}

func (c *bubbleConn) Close() error {
	c.closed.Do(func() { close(c.ended) })
	return c.Conn.Close()
}

func TestLeaseIsValidForTheTTLLessDrift(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		before := time.Now()
		l := acquire(t, b.manager, "key", 30*time.Second)
		require.Equal(t, before.Add(30*time.Second-300*time.Millisecond), l.ValidUntil())
		require.Equal(t, l.ValidUntil(), l.Wait().ValidUntil)
		require.NoError(t, l.Unlock())
	})
}

func TestLossIsSignalledByValidUntil(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		l := acquire(t, b.manager, "key", 31*time.Second)
		<-l.Done()
		require.False(t, time.Now().After(l.ValidUntil()), "the signal came after ValidUntil")
		require.WithinDuration(t, l.ValidUntil(), time.Now(), 10*time.Millisecond)
		require.ErrorIs(t, l.Err(), redislock.ErrLost)
		err := l.Unlock()
		require.ErrorIs(t, err, redislock.ErrNotHeld)
		require.ErrorIs(t, err, redislock.ErrLost)
		synctest.Wait()
		require.False(t, b.server.Exists("key"), "Unlock of a lost lock still cleans up")
	})
}

// Nobody has to listen for a loss to be noticed.
func TestLossIsNoticedByWhoeverAsks(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		l := acquire(t, b.manager, "key", time.Second)
		time.Sleep(2 * time.Second)
		require.ErrorIs(t, l.Extend(ctx, time.Second), redislock.ErrLost)
		require.ErrorIs(t, l.Err(), redislock.ErrLost)
		require.True(t, closed(l.Done()))

		l = acquire(t, b.manager, "key", time.Second)
		time.Sleep(2 * time.Second)
		require.ErrorIs(t, l.Unlock(), redislock.ErrLost)
	})
}

func TestExtendMovesTheLeaseOn(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		l := acquire(t, b.manager, "key", 10*time.Second)
		done := l.Done()
		time.Sleep(9 * time.Second)
		before := time.Now()
		require.NoError(t, l.Extend(ctx, 20*time.Second))
		require.Equal(t, before.Add(20*time.Second-200*time.Millisecond), l.ValidUntil())
		require.Equal(t, 20*time.Second, b.server.TTL("key"))
		time.Sleep(19 * time.Second)
		require.False(t, closed(done))
		<-done
		require.False(t, time.Now().After(l.ValidUntil()))
	})
}

// An extension that arrives late, after a longer one, takes nothing away.
func TestExtendNeverShortens(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		l := acquire(t, b.manager, "key", time.Minute)
		until := l.ValidUntil()
		require.NoError(t, l.Extend(ctx, time.Second))
		require.Equal(t, time.Minute, b.server.TTL("key"))
		require.Equal(t, until, l.ValidUntil())
		require.NoError(t, l.Unlock())
	})
}

func TestExtendOfALockTakenAwayTellsTheLoss(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		l := acquire(t, b.manager, "key", time.Minute)
		require.NoError(t, b.server.Set("key", "foreign"))
		err := l.Extend(ctx, time.Hour)
		require.ErrorIs(t, err, redislock.ErrNotHeld)
		require.ErrorIs(t, err, redislock.ErrLost)
		require.True(t, closed(l.Done()))
		require.Zero(t, b.server.TTL("key"), "another's lock was extended")
		got, _ := b.server.Get("key")
		require.Equal(t, "foreign", got)
	})
}

func TestExtendArguments(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		l := acquire(t, b.manager, "key", time.Minute)
		require.ErrorIs(t, l.Extend(ctx, 0), redislock.ErrInvalidArgument)
		var none context.Context
		require.ErrorIs(t, l.Extend(none, time.Second), redislock.ErrInvalidArgument)
		ended, cancel := context.WithCancel(ctx)
		cancel()
		require.ErrorIs(t, l.Extend(ended, time.Second), context.Canceled)
		require.NoError(t, l.Unlock())
		require.ErrorIs(t, l.Extend(ctx, time.Second), redislock.ErrNotHeld)
	})
}

func TestAutoRenewHoldsForAsLongAsItMay(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		start := time.Now()
		const longest = 61500 * time.Millisecond // ends between two renewals
		l := acquire(t, b.manager, "key", 3*time.Second, redislock.WithAutoRenew(longest))
		for range 55 {
			time.Sleep(time.Second)
			require.NoError(t, l.Err())
			got, _ := b.server.Get("key")
			require.Equal(t, l.Value(), got)
		}
		<-l.Done()
		require.WithinDuration(t, start.Add(longest), time.Now(), 100*time.Millisecond)
		require.ErrorIs(t, l.Err(), redislock.ErrLost)
		require.Contains(t, l.Err().Error(), "longest hold")
		time.Sleep(100 * time.Millisecond)
		require.False(t, b.server.Exists("key"), "held beyond the longest hold")
	})
}

func TestAutoRenewEndsWithTheRelease(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		l := acquire(t, b.manager, "key", 3*time.Second, redislock.WithAutoRenew(time.Hour))
		time.Sleep(10 * time.Second)
		require.NoError(t, l.Unlock())
		require.NoError(t, b.server.Set("key", "foreign"))
		b.server.SetTTL("key", time.Minute)
		time.Sleep(30 * time.Second)
		require.Equal(t, 30*time.Second, b.server.TTL("key"))
	})
}

func TestAutoRenewNoticesThatTheKeyIsGone(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		l := acquire(t, b.manager, "key", 30*time.Second, redislock.WithAutoRenew(time.Hour))
		b.server.Del("key")
		start := time.Now()
		<-l.Done()
		require.LessOrEqual(t, time.Since(start), 10*time.Second)
		require.ErrorIs(t, l.Err(), redislock.ErrLost)
		require.False(t, b.server.Exists("key"), "a renewal brought the key back")
	})
}

// All renewals that are due go out in one pipeline.
func TestRenewalsShareARoundTrip(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		for i := range 100 {
			acquire(t, b.manager, fmt.Sprint("key", i), 30*time.Second, redislock.WithAutoRenew(time.Hour))
		}
		var pipelines atomic.Int32
		b.client.AddHook(pipelineHook(func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
			if cmds[0].Name() == "evalsha" || cmds[0].Name() == "eval" { // not the client's own greeting
				pipelines.Add(1)
			}
			return next(ctx, cmds)
		}))
		time.Sleep(29 * time.Second)
		synctest.Wait()
		require.LessOrEqual(t, pipelines.Load(), int32(4))
		require.GreaterOrEqual(t, pipelines.Load(), int32(2))
	})
}

// Of a lease whose grant was long under way less than a TTL is left: it is renewed
// before that ends.
func TestLeaseThatWasGrantedLateIsRenewedInTime(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := newWire(b)
		require.NoError(t, acquire(t, b.manager, "warm", time.Minute).Unlock())
		w.next.Store(&fate{after: 240 * time.Millisecond})
		l := acquire(t, b.manager, "key", 300*time.Millisecond, redislock.WithAutoRenew(time.Hour))
		require.Less(t, time.Until(l.ValidUntil()), 100*time.Millisecond, "no late grant")
		time.Sleep(10 * time.Second)
		require.NoError(t, l.Err())
		require.NoError(t, l.Unlock())
	})
}

// More renewals than are answered before a batch counts as stalled go out in
// several, and each once.
func TestManyRenewalsGoOutInSeveralBatches(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		// The server has the script: else the second batch may come before the first,
		// which has it along, and is sent again.
		warm := acquire(t, b.manager, "warm", time.Minute)
		require.NoError(t, warm.Extend(ctx, time.Minute))
		require.NoError(t, warm.Unlock())
		var locks []*redislock.Lock
		for i := range 1201 {
			locks = append(locks, acquire(t, b.manager, fmt.Sprint("key", i), 30*time.Second, redislock.WithAutoRenew(time.Hour)))
		}
		var mu sync.Mutex
		most, renewed := 0, make(map[any]int) // how often, by key
		b.client.AddHook(pipelineHook(func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
			mu.Lock()
			n := 0
			for _, cmd := range cmds {
				if args := cmd.Args(); len(args) == 6 && (args[0] == "evalsha" || args[0] == "eval") { // extend.lua
					renewed[args[3]]++
					n++
				}
			}
			most = max(most, n)
			mu.Unlock()
			return next(ctx, cmds)
		}))
		time.Sleep(15 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, renewed, len(locks))
		for key, times := range renewed {
			require.Equal(t, 1, times, key)
		}
		require.Equal(t, 500, most)
		for _, l := range locks {
			require.Greater(t, time.Until(l.ValidUntil()), 20*time.Second, l.Key())
		}
	})
}

// Unlock waits for one TTL at most, each for its own: whoever came first, and has
// the longest TTL, does not have others wait for as long.
func TestUnlockWaitsForATTLAtMost(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		var locks []*redislock.Lock
		ttls := []time.Duration{2500 * time.Millisecond, 1700 * time.Millisecond, time.Second, 2 * time.Second}
		for i, ttl := range ttls { // shorter than the client waits for an answer
			locks = append(locks, acquire(t, b.manager, fmt.Sprint("key", i), ttl))
		}
		b.frozen.Store(true)
		var took [4]time.Duration
		var wg sync.WaitGroup
		for i, l := range locks {
			wg.Go(func() {
				start := time.Now()
				err := l.Unlock()
				took[i] = time.Since(start)
				assert.ErrorIs(t, err, context.DeadlineExceeded)
			})
			time.Sleep(100 * time.Millisecond)
		}
		wg.Wait()
		require.Equal(t, ttls, took[:])
		b.frozen.Store(false)
		time.Sleep(10 * time.Second) // until the manager has given up too
	})
}

// With Redis frozen and a renewal in flight, Done closes by the last confirmed
// ValidUntil. node-redlock and rueidislock tell much later.
func TestLossWhileARenewalIsInFlight(t *testing.T) {
	for _, ttl := range []time.Duration{3 * time.Second, 30 * time.Second} { // no longer and longer than the client waits
		inBubble(t, func(t *testing.T, b *bubble) {
			l := acquire(t, b.manager, "key", ttl, redislock.WithAutoRenew(time.Hour))
			time.Sleep(ttl * 11 / 6) // not when a renewal is due
			confirmed := l.ValidUntil()
			b.frozen.Store(true)
			<-l.Done()
			require.Equal(t, confirmed, l.ValidUntil())
			require.False(t, time.Now().After(confirmed))
			require.ErrorIs(t, l.Err(), redislock.ErrLost)
		})
	}
}

// A lease that has run out before the reply is there is not returned as success
// (node-redlock #369).
func TestGrantThatComesTooLateIsNoSuccess(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		acquire(t, b.manager, "other", time.Minute) // the connection is up
		var slow atomic.Bool
		slow.Store(true)
		b.client.AddHook(slowReplies(&slow, 2*time.Second))

		_, err := b.manager.TryLock(ctx, "key", time.Second)
		require.ErrorIs(t, err, redislock.ErrNotAcquired)
		r := b.manager.Lock(ctx, "key", time.Second).Wait()
		require.ErrorIs(t, r.Err, redislock.ErrNotAcquired)

		l := b.manager.Lock(ctx, "key", time.Second)
		time.Sleep(3 * time.Second)
		slow.Store(false)
		r = l.Wait()
		require.NoError(t, r.Err)
		require.True(t, time.Now().Before(r.ValidUntil))
		require.NoError(t, l.Unlock())
		// A copy of the request waits for a connection that takes 2 s to set up, and may take
		// the key 1 s from now, for nobody. It is removed as soon as that is known.
		for range 30 {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			require.False(t, b.server.Exists("key"))
		}
	})
}

// slowReplies has the client read replies late, while that is on.
func slowReplies(on *atomic.Bool, delay time.Duration) pipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
		err := next(ctx, cmds)
		if on.Load() {
			time.Sleep(delay)
		}
		return err
	}
}

// A network slower than the library's patience with a connection: an extension
// is sent again, but does not go on by itself for ever.
func TestSlowRoundTripsDoNotMultiplyExtensions(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		l := acquire(t, b.manager, "key", 4*time.Second)
		renewed := acquire(t, b.manager, "renewed", 2*time.Second, redislock.WithAutoRenew(6*time.Second))
		start := time.Now()
		var slow atomic.Bool
		slow.Store(true)
		b.client.AddHook(slowReplies(&slow, 300*time.Millisecond))
		require.NoError(t, l.Extend(ctx, 4*time.Second))
		<-l.Done()
		require.Less(t, time.Since(start), 5*time.Second)
		<-renewed.Done()
		require.LessOrEqual(t, time.Since(start), 6*time.Second)
		require.ErrorContains(t, renewed.Err(), "longest hold")
		time.Sleep(time.Second)
		require.False(t, b.server.Exists("key"))
		require.False(t, b.server.Exists("renewed"))
	})
}

// Redis out of reach during a renewal: what was to be renewed then is not held
// for longer than it may on that account.
func TestLongestHoldOutlastsNoOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		start := time.Now()
		l := acquire(t, b.manager, "key", 5*time.Second, redislock.WithAutoRenew(11*time.Second))
		time.Sleep(9 * time.Second)
		b.server.SetError("BUSY Redis is busy running a script.")
		time.Sleep(1500 * time.Millisecond)
		b.server.SetError("")
		<-l.Done()
		require.LessOrEqual(t, time.Since(start), 11*time.Second)
	})
}

// A Redis that is busy gets the release later; the caller does not have to see
// to it.
func TestReleaseOutlastsABusyRedis(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		l := acquire(t, b.manager, "key", 30*time.Second)
		b.server.SetError("BUSY Redis is busy running a script.")
		time.AfterFunc(3*time.Second, func() { b.server.SetError("") })
		require.NoError(t, l.Unlock())
		require.False(t, b.server.Exists("key"))
	})
}

// cut ends all connections.
func (b *bubble) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		_ = c.Conn.Close()
	}
}
