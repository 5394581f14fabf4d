package redislock_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
)

func TestLockStoresItsValueUnderTheKeyItself(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client)
		l := acquire(t, m, "key", time.Minute)
		require.Equal(t, "key", l.Key())
		require.Equal(t, l.Value(), client.Get(ctx, "key").Val())
		ttl := client.PTTL(ctx, "key").Val()
		require.Greater(t, ttl, 50*time.Second)
		require.LessOrEqual(t, ttl, time.Minute)
		require.NoError(t, l.Err())
		require.False(t, closed(l.Done()))

		require.NoError(t, l.Unlock())
		require.Zero(t, client.Exists(ctx, "key").Val())
		require.ErrorIs(t, l.Err(), redislock.ErrReleased)
		require.True(t, closed(l.Done()))
		requireClean(t, client)
	})
}

func TestWaitGivesTheSameAnswerToAll(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client)
		l := m.Lock(ctx, "key", time.Minute)
		var wg sync.WaitGroup
		results := make([]redislock.Result, 20)
		for i := range results {
			wg.Go(func() { results[i] = l.Wait() })
		}
		finish(t, &wg)
		for _, r := range results {
			require.True(t, r.OK())
			require.Equal(t, l.Token(), r.Token)
			require.Equal(t, l.Wait(), r)
		}
		require.NoError(t, l.Unlock())
		require.Equal(t, results[0], l.Wait())
	})
}

func TestCancelledWaiterLeavesTheLineAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client)
		holder := acquire(t, m, "key", time.Minute)
		reason := errors.New("the reason")
		cancelled, cancel := context.WithCancelCause(ctx)
		waiter := m.Lock(cancelled, "key", time.Minute)
		behind := m.Lock(ctx, "key", time.Minute)
		awaitWaiters(t, client, "key", 2)
		cancel(reason)
		r := soon(t, waiter)
		require.ErrorIs(t, r.Err, context.Canceled)
		require.ErrorIs(t, r.Err, reason)
		require.Zero(t, r.Token)
		require.ErrorIs(t, waiter.Err(), context.Canceled)
		require.True(t, closed(waiter.Done()))
		require.ErrorIs(t, waiter.Unlock(), redislock.ErrNotHeld)
		awaitWaiters(t, client, "key", 1)

		require.NoError(t, holder.Unlock())
		serve(t, behind)
		requireClean(t, client)
	})
}

func TestDeadlineOfAWaiterIsReportedAsSuch(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client)
		holder := acquire(t, m, "key", time.Minute)
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		r := soon(t, m.Lock(short, "key", time.Minute))
		require.ErrorIs(t, r.Err, context.DeadlineExceeded)
		require.NotErrorIs(t, r.Err, context.Canceled)
		require.GreaterOrEqual(t, r.Waited, 15*time.Millisecond)
		require.NoError(t, holder.Unlock())
		requireClean(t, client)
	})
}

func TestContextThatHasEndedSendsNothing(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer client.Close()
	m := newManager(t, client)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	l := m.Lock(ended, "key", time.Minute)
	require.ErrorIs(t, l.Wait().Err, context.Canceled)
	require.ErrorIs(t, l.Unlock(), redislock.ErrNotHeld)
	_, err := m.TryLock(ended, "key", time.Minute)
	require.ErrorIs(t, err, context.Canceled)
}

// A grant that crosses with a cancellation is given on: whatever the order in
// which they meet, the line moves and nothing stays behind.
func TestGrantThatCrossesACancellationIsGivenOn(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m, m2 := newManager(t, client), newManager(t, client)
		won := 0
		for i := range 300 {
			holder := acquire(t, m, "key", time.Minute)
			cancellable, cancel := context.WithCancel(ctx)
			crossing := m2.Lock(cancellable, "key", time.Minute)
			awaitWaiters(t, client, "key", 1)
			var wg sync.WaitGroup
			wg.Go(func() {
				for range i * 20 { // a little later each time
					_ = i
				}
				cancel()
			})
			wg.Go(func() {
				if err := holder.Unlock(); err != nil {
					t.Error(err)
				}
			})
			finish(t, &wg)
			if r := soon(t, crossing); r.OK() {
				won++
				require.NoError(t, crossing.Unlock())
			}
			last := acquire(t, m, "key", time.Minute)
			require.Less(t, last.Wait().Waited, 10*time.Second)
			require.NoError(t, last.Unlock())
		}
		t.Logf("granted %d times, cancelled %d times", won, 300-won)
		requireClean(t, client)
	})
}

func TestUnlockIsRightInEveryCase(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client)

		t.Run("twice", func(t *testing.T) {
			l := acquire(t, m, "key", time.Minute)
			require.NoError(t, l.Unlock())
			require.ErrorIs(t, l.Unlock(), redislock.ErrNotHeld)
		})
		t.Run("without Wait", func(t *testing.T) {
			for range 200 {
				l := m.Lock(ctx, "key", time.Minute)
				require.NoError(t, l.Unlock())
				if r := l.Wait(); r.Err != nil {
					require.ErrorIs(t, r.Err, redislock.ErrReleased)
				}
			}
			require.Zero(t, client.Exists(ctx, "key").Val())
		})
		t.Run("still waiting", func(t *testing.T) {
			holder := acquire(t, m, "key", time.Minute)
			l := m.Lock(ctx, "key", time.Minute)
			awaitWaiters(t, client, "key", 1)
			require.NoError(t, l.Unlock())
			require.Zero(t, waiters(t, client, "key"))
			require.ErrorIs(t, soon(t, l).Err, redislock.ErrReleased)
			require.NoError(t, holder.Unlock())
		})
		t.Run("never acquired", func(t *testing.T) {
			l := m.Lock(ctx, "", time.Minute)
			require.ErrorIs(t, l.Unlock(), redislock.ErrNotHeld)
		})
		t.Run("from many goroutines", func(t *testing.T) {
			l := acquire(t, m, "key", time.Minute)
			var released atomic.Int32
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if err := l.Unlock(); err == nil {
						released.Add(1)
					} else if !errors.Is(err, redislock.ErrNotHeld) {
						t.Error(err)
					}
				})
			}
			finish(t, &wg)
			require.EqualValues(t, 1, released.Load())
		})
		t.Run("taken away", func(t *testing.T) {
			l := acquire(t, m, "key", time.Minute)
			require.NoError(t, client.Set(ctx, "key", "foreign", time.Minute).Err())
			err := l.Unlock()
			require.ErrorIs(t, err, redislock.ErrNotHeld)
			require.ErrorIs(t, err, redislock.ErrLost)
			require.Equal(t, "foreign", client.Get(ctx, "key").Val())
			require.NoError(t, client.Del(ctx, "key").Err())
		})
		requireClean(t, client)
	})
}

// bsm/redislock compares a prefix: there the token "worker-1" takes over the
// lock of "worker-10".
func TestOwnerValueThatBeginsAlikeIsAnother(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m, m2 := newManager(t, client), newManager(t, client)
		l := acquire(t, m, "key", time.Minute, redislock.WithValue("worker-10"))
		require.Equal(t, "worker-10", client.Get(ctx, "key").Val())
		_, err := m2.TryLock(ctx, "key", time.Minute, redislock.WithValue("worker-1"))
		require.ErrorIs(t, err, redislock.ErrNotAcquired)
		_, err = m2.TryLock(ctx, "key", time.Minute, redislock.WithValue("worker-1"))
		require.ErrorIs(t, err, redislock.ErrNotAcquired)
		require.NoError(t, l.Unlock())

		l = acquire(t, m, "key", time.Minute, redislock.WithValue("worker-1"))
		require.NoError(t, client.Set(ctx, "key", "worker-10", time.Minute).Err()) // it was lost meanwhile
		require.ErrorIs(t, l.Unlock(), redislock.ErrNotHeld)
		l = acquire(t, m, "other", time.Minute, redislock.WithValue("worker-1"))
		require.NoError(t, client.Set(ctx, "other", "worker-10", time.Minute).Err())
		require.ErrorIs(t, l.Extend(ctx, time.Hour), redislock.ErrNotHeld)
		require.Equal(t, "worker-10", client.Get(ctx, "key").Val())
		require.LessOrEqual(t, client.PTTL(ctx, "other").Val(), time.Minute)
	})
}

func TestOwnerValueOfALiveLockIsRefused(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client)
		l := acquire(t, m, "key", time.Minute, redislock.WithValue("worker"))
		r := soon(t, m.Lock(ctx, "key", time.Minute, redislock.WithValue("worker")))
		require.ErrorIs(t, r.Err, redislock.ErrInvalidArgument)
		require.NoError(t, l.Unlock())
		l = acquire(t, m, "key", time.Minute, redislock.WithValue("worker"))
		require.NoError(t, l.Unlock())
	})
}

func TestKeysAndValuesMayHoldAnyByte(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m, m2 := newManager(t, client), newManager(t, client)
		odd := []string{" ", ":", "a:b:c:d", "{", "}", "{}", "}{a}", "\x00\xff\n\r\n", "1 2 3", "%d%s%%", "ключ"}
		for i, key := range odd {
			value := odd[len(odd)-1-i]
			holder := acquire(t, m, key, time.Minute, redislock.WithValue("holder"))
			next := m2.Lock(ctx, key, time.Minute, redislock.WithValue(value))
			awaitWaiters(t, client, key, 1)
			require.NoError(t, holder.Unlock(), "%q", key)
			require.True(t, soon(t, next).OK(), "%q", key)
			require.Equal(t, value, client.Get(ctx, key).Val())
			require.NoError(t, next.Unlock(), "%q", key)
		}
		requireClean(t, client)
	})
}
