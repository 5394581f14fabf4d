package redislock_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
)

// What is sent again over another connection, because the first is silent, and what
// becomes of the first when it comes after all. A request is late by more than a
// stall (250 ms), and by less than the client's time-out (3 s), which so has no part
// in it.

const late = 2 * time.Second

// heldElsewhere has another process hold the key, and the first one know of it: its next
// call joins the line straight away.
func heldElsewhere(t *testing.T, b, other *bubble, key string) *redislock.Lock {
	t.Helper()
	holder := acquire(t, other.manager, key, time.Hour)
	_, err := b.manager.TryLock(ctx, key, time.Hour)
	require.ErrorIs(t, err, redislock.ErrNotAcquired)
	return holder
}

func TestAcquireOutlivesASilentConnection(t *testing.T) {
	for name, f := range map[string]fate{
		"request": {before: late},
		"answer":  {after: late},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				w := newWire(b)
				require.NoError(t, acquire(t, b.manager, "warm", time.Minute).Unlock())
				start := time.Now()
				w.next.Store(&f)
				l := acquire(t, b.manager, "key", time.Minute)
				require.Less(t, time.Since(start), 300*time.Millisecond, "waits for the client's time-out")
				require.LessOrEqual(t, time.Until(l.ValidUntil()), b.server.TTL("key"))
				require.NoError(t, l.Unlock())
				require.False(t, b.server.Exists("key"))

				next := acquire(t, b.manager, "key", time.Hour)
				time.Sleep(late) // the first is carried out, or answered
				require.NoError(t, next.Err())
				require.NoError(t, next.Unlock())
				synctest.Wait()
				require.False(t, b.server.Exists("key"), "the late one has taken the key")
			})
		})
	}
}

// A connection that swallows everything, while new ones would work: the renewal
// goes over another.
func TestRenewalOutlivesADeadConnection(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := newWire(b)
		l := acquire(t, b.manager, "key", 3*time.Second, redislock.WithAutoRenew(time.Hour))
		confirmed := l.ValidUntil()
		w.next.Store(&fate{before: late})
		time.Sleep(1500 * time.Millisecond) // the renewal falls into it
		require.Nil(t, w.next.Load())
		require.Greater(t, l.ValidUntil(), confirmed, "waits for the client's time-out")
		time.Sleep(10 * time.Second)
		require.NoError(t, l.Err())
		require.NoError(t, l.Unlock())
	})
}

// Likewise one who has to wait, behind a holder who lets go meanwhile.
func TestJoinOutlivesASilentConnection(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := newWire(b)
		other := b.another(t)
		holder := heldElsewhere(t, b, other, "key")
		w.next.Store(&fate{before: late})
		first, second := b.manager.Lock(ctx, "key", time.Minute), b.manager.Lock(ctx, "key", time.Minute)
		time.Sleep(300 * time.Millisecond)
		require.Equal(t, 2, waiters(t, b.client, "key"))
		require.NoError(t, holder.Unlock())
		require.NoError(t, first.Wait().Err)
		require.Zero(t, second.Token(), "overtook the call before it")
		require.NoError(t, first.Unlock())
		serve(t, second)
	})
}

// A request that is carried out when its caller has long been served, and has gone,
// leaves nothing: neither the key nor a place in the line.
func TestRequestThatComesWhenItsCallerHasGone(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := newWire(b)
		other := b.another(t)
		require.NoError(t, acquire(t, b.manager, "free", time.Hour).Unlock())
		w.next.Store(&fate{before: late})
		require.NoError(t, acquire(t, b.manager, "free", time.Hour).Unlock())

		holder := heldElsewhere(t, b, other, "taken")
		w.next.Store(&fate{before: late})
		l := b.manager.Lock(ctx, "taken", time.Hour)
		time.Sleep(300 * time.Millisecond)
		require.NoError(t, holder.Unlock())
		serve(t, l)
		holder = acquire(t, other.manager, "taken", time.Hour)

		time.Sleep(2 * late)
		require.False(t, b.server.Exists("free"), "the key is taken for nobody")
		require.Zero(t, waiters(t, b.client, "taken"), "somebody stands in line who has gone")
		require.NoError(t, holder.Unlock())
	})
}

// A waiter lost its place, and its first request, which comes late, gives it the last
// one: it goes back to its own. Without keyspace events, as who asks for them, and is
// refused, looks at the line when he asks again.
func TestLateJoinDoesNotCostThePlace(t *testing.T) {
	b := &bubble{own: []redislock.Option{redislock.WithKeyspaceEvents(redislock.KeyspaceOff)}}
	inBubbleOf(t, b, func(t *testing.T, b *bubble) {
		w := newWire(b)
		other := b.another(t)
		holder := heldElsewhere(t, b, other, "key")
		w.next.Store(&fate{before: late})
		first := b.manager.Lock(ctx, "key", time.Hour)
		time.Sleep(late - 500*time.Millisecond) // it looks no more before the lease ends
		require.Equal(t, 1, waiters(t, b.client, "key"))
		second := other.manager.Lock(ctx, "key", time.Hour)
		synctest.Wait()

		queue, _ := redislock.KeysOf("key")
		line, err := b.server.ZMembers(queue)
		require.NoError(t, err)
		require.Contains(t, line[0], first.Value())
		_, err = b.server.ZRem(queue, line[0])
		require.NoError(t, err)
		time.Sleep(late)
		require.Equal(t, 2, waiters(t, b.client, "key"))
		require.NoError(t, holder.Unlock())
		require.NoError(t, first.Wait().Err)
		require.Zero(t, second.Token(), "overtook the one before it")
		require.NoError(t, first.Unlock())
		serve(t, second)
	})
}

// The late answer comes amid the release, which has not been carried out yet: what
// has to be cleaned up after that must not get ahead of it, or Unlock would be told
// that the lock was lost.
func TestLateAnswerAmidTheRelease(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := newWire(b)
		other := b.another(t)
		holder := heldElsewhere(t, b, other, "key")
		require.NoError(t, holder.Unlock())
		w.next.Store(&fate{before: late})
		start := time.Now()
		l := acquire(t, b.manager, "key", time.Hour)
		time.Sleep(late - 100*time.Millisecond - time.Since(start))
		w.next.Store(&fate{before: 200 * time.Millisecond}) // less than a stall, so that it is sent once
		require.NoError(t, l.Unlock())
		require.Equal(t, late+100*time.Millisecond, time.Since(start), "the late answer came amid the release")
		time.Sleep(time.Second)
		require.False(t, b.server.Exists("key"))
	})
}

// Redis as a whole stands still: each request is sent three times, and no more until
// the client's time-out.
func TestRequestsDoNotPileUpWhileRedisStandsStill(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		require.NoError(t, acquire(t, b.manager, "warm", time.Minute).Unlock())
		var sent atomic.Int32
		b.client.AddHook(pipelineHook(func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
			if !isGreeting(cmds) {
				sent.Add(1)
			}
			return next(ctx, cmds)
		}))
		b.frozen.Store(true)
		l := b.manager.Lock(ctx, "key", time.Minute)
		time.Sleep(late)
		require.EqualValues(t, 3, sent.Load())
		b.frozen.Store(false)
		require.NoError(t, l.Wait().Err)
		require.NoError(t, l.Unlock())
		require.False(t, b.server.Exists("key"))
	})
}
