package redislock_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// throughProxy returns a client of a server, a proxy, and a client through that
// proxy, with the read timeout, if not 0.
func throughProxy(t *testing.T, readTimeout time.Duration) (direct *redis.Client, proxy *redistest.Proxy, client *redis.Client) {
	server := redistest.Start(t)
	proxy = redistest.StartProxy(t, server.Addr)
	client = server.Client(func(o *redis.Options) { o.Addr, o.ReadTimeout = proxy.Addr, readTimeout })
	return server.Client(nil), proxy, client
}

// awaitReplies waits until so many more have come through: on a machine that is slow
// enough, nobody would be served ever. It does not wait for long, as nobody may be left
// to ask for any.
func awaitReplies(proxy *redistest.Proxy, n int64) {
	n += proxy.Replies.Load()
	for end := time.Now().Add(time.Second); proxy.Replies.Load() < n && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

func TestNoWakeUpIsLostWhileSubscriptionsAreKilled(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(nil)
	passOn(t, client, managersOf(t, client, 4), 50, time.Second, 40*time.Second, func() {
		client.ClientKillByFilter(ctx, "TYPE", "pubsub")
		time.Sleep(5 * time.Millisecond)
	})
	requireClean(t, client)
}

func TestNoWakeUpIsLostWhileConnectionsAreCut(t *testing.T) {
	direct, proxy, client := throughProxy(t, 0)
	passOn(t, direct, managersOf(t, client, 3), 50, time.Second, 60*time.Second, func() {
		proxy.Cut()
		time.Sleep(15 * time.Millisecond)
		awaitReplies(proxy, 20)
	})
	requireClean(t, direct)
}

func TestNoWakeUpIsLostWhileRepliesAre(t *testing.T) {
	direct, proxy, client := throughProxy(t, 0)
	passOn(t, direct, managersOf(t, client, 3), 50, time.Second, 60*time.Second, func() {
		proxy.LoseReplies.Store(true)
		time.Sleep(50 * time.Millisecond)
		awaitReplies(proxy, 10)
	})
	requireClean(t, direct)
}

// A release whose answer was lost is done again, and is no error: the first
// attempt may have been the one that counted. In redis_queued_locks and others
// the repetition hits the next holder.
func TestReleaseWhoseAnswerIsLost(t *testing.T) {
	direct, proxy, client := throughProxy(t, 0)
	m, other := newManager(t, client), newManager(t, direct)
	for range 20 {
		l := acquire(t, m, "key", time.Minute)
		next := other.Lock(ctx, "key", time.Minute)
		awaitWaiters(t, direct, "key", 1)
		last := m.Lock(ctx, "key", time.Minute) // so that m knows of a line
		awaitWaiters(t, direct, "key", 2)
		proxy.LoseReplies.Store(true)
		require.NoError(t, l.Unlock())
		require.Equal(t, next.Value(), direct.Get(ctx, "key").Val())
		serve(t, next)
		serve(t, last)

		l = acquire(t, m, "nobody else's", time.Minute)
		proxy.LoseReplies.Store(true)
		require.NoError(t, l.Unlock())
	}
	requireClean(t, direct)
}

// A waiter that never heard where it stands, and was skipped while it was cut off,
// comes back to its place: ahead of all who joined after it.
func TestPlaceIsKeptAlthoughTheAnswerToJoiningWasLost(t *testing.T) {
	server := redistest.Start(t)
	direct := server.Client(nil)
	proxy := redistest.StartProxy(t, server.Addr)
	var way sync.RWMutex
	cut := newManager(t, server.Client(func(o *redis.Options) {
		o.Dialer = func(context.Context, string, string) (net.Conn, error) {
			way.RLock() // blocked: locked
			defer way.RUnlock()
			return net.Dial("tcp", proxy.Addr)
		}
	}), redislock.WithKeyspaceEvents(redislock.KeyspaceOff))
	m := newManager(t, direct)

	busy := acquire(t, m, "other", time.Minute)
	elsewhere := cut.Lock(ctx, "other", time.Minute) // for the sake of a subscription
	awaitWaiters(t, direct, "other", 1)
	first := acquire(t, m, "key", time.Minute)
	_, err := cut.TryLock(ctx, "key", time.Minute) // now it knows: taken
	require.ErrorIs(t, err, redislock.ErrNotAcquired)

	way.Lock()
	proxy.LoseReplies.Store(true)
	forgotten := cut.Lock(ctx, "key", time.Minute)
	awaitWaiters(t, direct, "key", 1)
	second := m.Lock(ctx, "key", time.Minute)
	awaitWaiters(t, direct, "key", 2)
	proxy.Cut()
	eventually(t, "Redis notices the cut", func() bool {
		return len(direct.PubSubChannels(ctx, "redislock:grant:*").Val()) == 1
	})
	require.NoError(t, first.Unlock())
	require.True(t, soon(t, second).OK(), "the one that is cut off is skipped")
	newcomer := m.Lock(ctx, "key", time.Minute)
	awaitWaiters(t, direct, "key", 1)
	way.Unlock()
	awaitWaiters(t, direct, "key", 2)
	queue, _ := redislock.KeysOf("key")
	line := direct.ZRange(ctx, queue, 0, -1).Val()
	require.Contains(t, line[0], forgotten.Value())
	require.Contains(t, line[1], newcomer.Value())

	for _, l := range []*redislock.Lock{second, forgotten, newcomer} {
		go func() { l.Wait(); _ = l.Unlock() }()
	}
	for _, l := range []*redislock.Lock{forgotten, newcomer} {
		require.True(t, soon(t, l).OK())
	}
	require.NoError(t, elsewhere.Unlock())
	require.NoError(t, busy.Unlock())
	requireClean(t, direct)
}

// ZOOKEEPER-1262: created, but the reply was lost.
func TestAcquisitionWhoseAnswerIsLost(t *testing.T) {
	direct, proxy, client := throughProxy(t, 0)
	m := newManager(t, client)
	var last int64
	for i := range 20 {
		require.NoError(t, acquire(t, m, "warm", time.Minute).Unlock())
		proxy.LoseReplies.Store(true)
		key := fmt.Sprint("key", i) // that was not found taken before
		var l *redislock.Lock
		if i%2 == 0 {
			l = m.Lock(ctx, key, time.Minute)
		} else {
			var err error
			l, err = m.TryLock(ctx, key, time.Minute)
			require.NoError(t, err)
		}
		r := soon(t, l)
		require.NoError(t, r.Err)
		require.Greater(t, r.Token, last)
		last = r.Token
		require.Equal(t, l.Value(), direct.Get(ctx, key).Val())
		require.NoError(t, l.Unlock())
	}
	requireClean(t, direct)
}

// A grant handed over in a reply that is lost is found again.
func TestGrantInALostReply(t *testing.T) {
	direct, proxy, client := throughProxy(t, 0)
	m := newManager(t, client, redislock.WithKeyspaceEvents(redislock.KeyspaceOff)) // which would find it, too
	for range 10 {
		l := acquire(t, m, "key", time.Minute)
		next := m.Lock(ctx, "key", time.Minute)
		awaitWaiters(t, direct, "key", 1)
		proxy.LoseReplies.Store(true)
		require.NoError(t, l.Unlock())
		require.Less(t, soon(t, next).Waited, 30*time.Second) // not a TTL
		require.NoError(t, next.Err())
		require.NoError(t, next.Unlock())
	}
	requireClean(t, direct)
}

// etcd #11456: Lock returned without checking its lease again after the wait.
// Here the message with the grant comes after the lease has ended.
func TestGrantMessageThatComesTooLate(t *testing.T) {
	direct, proxy, client := throughProxy(t, 300*time.Millisecond)
	m, other := newManager(t, client), newManager(t, direct)
	holder := acquire(t, other, "key", time.Minute)
	waiter := m.Lock(ctx, "key", 200*time.Millisecond)
	awaitWaiters(t, direct, "key", 1)
	behind := other.Lock(ctx, "key", time.Minute)
	awaitWaiters(t, direct, "key", 2)
	proxy.Silent.Store(true)
	require.NoError(t, holder.Unlock())
	require.True(t, soon(t, behind).OK(), "the line moves on when the lease of the unreachable ends")
	proxy.Silent.Store(false)
	proxy.Cut()
	time.Sleep(50 * time.Millisecond)
	require.Equal(t, behind.Value(), direct.Get(ctx, "key").Val())
	require.NoError(t, waiter.Err())
	require.Zero(t, waiter.Token(), "success for a lease that had ended")
	require.NoError(t, behind.Unlock())
	require.NoError(t, soon(t, waiter).Err)
	if err := waiter.Unlock(); time.Now().Before(waiter.ValidUntil()) {
		require.NoError(t, err)
	}
	requireClean(t, direct)
}

// A join whose reply was lost, and that was cancelled then, leaves no member in
// the line.
func TestCancelledJoinWhoseAnswerIsLost(t *testing.T) {
	direct, proxy, client := throughProxy(t, 0)
	m := newManager(t, client)
	holder := acquire(t, m, "key", time.Minute)
	for range 20 {
		neighbour := m.Lock(ctx, "key", time.Minute) // so that the next joins straight away
		awaitWaiters(t, direct, "key", 1)
		ctx, cancel := context.WithCancel(ctx)
		proxy.LoseReplies.Store(true)
		l := m.Lock(ctx, "key", time.Minute)
		eventually(t, "joined, and the reply lost", func() bool { return !proxy.LoseReplies.Load() })
		cancel()
		require.ErrorIs(t, soon(t, l).Err, context.Canceled)
		require.NoError(t, neighbour.Unlock())
		awaitWaiters(t, direct, "key", 0)
	}
	require.NoError(t, holder.Unlock())
	requireClean(t, direct)
}
