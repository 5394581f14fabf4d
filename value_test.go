package redislock_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
)

// Several managers may go by the same owner value, as two services that both call
// themselves "worker": they exclude each other all the same.

var worker = redislock.WithValue("worker")

func TestEqualValuesExcludeEachOther(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		a, b, c := newManager(t, client), newManager(t, client), newManager(t, client)
		holder := acquire(t, a, "key", time.Minute, worker)
		for range 3 { // by plain commands first, then by the script
			_, err := b.TryLock(ctx, "key", time.Minute, worker)
			require.ErrorIs(t, err, redislock.ErrNotAcquired)
		}
		leaves, cancel := context.WithCancel(ctx)
		defer cancel()
		left := b.Lock(leaves, "key", time.Minute, worker)
		awaitWaiters(t, client, "key", 1)
		next := c.Lock(ctx, "key", time.Minute, worker)
		awaitWaiters(t, client, "key", 2)
		cancel()
		require.ErrorIs(t, soon(t, left).Err, context.Canceled)
		awaitWaiters(t, client, "key", 1)
		_, err := b.TryLock(ctx, "key", time.Minute)
		require.ErrorIs(t, err, redislock.ErrNotAcquired, "who left has taken the key away from its holder")
		require.NoError(t, holder.Extend(ctx, time.Minute))
		require.Zero(t, next.Token(), "two holders")

		require.NoError(t, holder.Unlock())
		require.NoError(t, soon(t, next).Err, "it is not told of its grant")
		again := b.Lock(ctx, "key", time.Minute, worker)
		awaitWaiters(t, client, "key", 1)
		require.NoError(t, next.Unlock())
		serve(t, again)
		requireClean(t, client)
	})
}

// Looks at the end of each lease do not take the next holder's value for their own.
func TestEqualValueFoundByALookIsAnothers(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		require.NoError(t, b.client.Set(ctx, "key", "worker", time.Hour).Err())
		l := b.manager.Lock(ctx, "key", time.Second, worker)
		time.Sleep(time.Minute)
		require.Zero(t, l.Token())
		b.server.Del("key")
		require.NoError(t, l.Wait().Err)
		require.NoError(t, l.Unlock())
	})
}

// A lock that was lost, and is unlocked late, leaves a later lock by the same value
// alone, whether that is of the same manager or of another.
func TestUnlockOfALostLockSparesALaterOneByTheSameValue(t *testing.T) {
	for _, managers := range []string{"same manager", "another manager"} {
		t.Run(managers, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				m := b.manager
				if managers == "another manager" {
					m = b.another(t).manager
				}
				lost := acquire(t, b.manager, "key", time.Second, worker)
				<-lost.Done()
				time.Sleep(time.Second)
				later := acquire(t, m, "key", time.Minute, worker)
				require.ErrorIs(t, lost.Unlock(), redislock.ErrLost)
				synctest.Wait()
				require.True(t, b.server.Exists("key"), "the later lock's key was removed")
				require.NoError(t, later.Extend(ctx, time.Minute))
				require.NoError(t, later.Unlock())
			})
		})
	}
}

// What the value can tell is not given away: the answer to the first attempt is lost,
// and the next recognises what that has done.
func TestOwnAttemptWithAChosenValueIsRecognised(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := newWire(b)
		require.NoError(t, acquire(t, b.manager, "warm", time.Minute).Unlock())
		w.next.Store(&fate{lost: true})
		l := acquire(t, b.manager, "key", time.Hour, worker)
		require.Less(t, l.Wait().Waited, time.Second)
		require.NoError(t, l.Unlock())
		require.False(t, b.server.Exists("key"))

		cancellable, cancel := context.WithCancel(ctx)
		w.next.Store(&fate{after: 200 * time.Millisecond, lost: true})
		l = b.manager.Lock(cancellable, "key", time.Hour, worker)
		time.Sleep(100 * time.Millisecond)
		cancel()
		require.ErrorIs(t, l.Wait().Err, context.Canceled)
		time.Sleep(time.Second)
		require.False(t, b.server.Exists("key"), "the key is left behind")
	})
}

// A request over a connection that has gone silent is not sent again: carried out late
// it would take the key in the name of a later lock.
func TestChosenValueIsNotSentTwice(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := newWire(b)
		require.NoError(t, acquire(t, b.manager, "warm", time.Minute).Unlock())
		w.next.Store(&fate{before: late})
		l := acquire(t, b.manager, "key", time.Hour, worker)
		require.Equal(t, late, l.Wait().Waited)
		require.NoError(t, l.Unlock())
	})
}

// A grant that crosses with a cancellation is given on, as of any other lock: both
// orders, and both ways to be told.
func TestGrantOfAChosenValueThatCrossesACancellation(t *testing.T) {
	for _, releaser := range []string{"same manager", "another manager"} {
		t.Run(releaser, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				other := b.another(t)
				m := other.manager
				if releaser == "same manager" {
					m = b.manager
				}
				w := newWire(b)
				for _, f := range []fate{{before: 200 * time.Millisecond}, {after: 200 * time.Millisecond}} {
					holder := acquire(t, m, "key", time.Hour)
					cancellable, cancel := context.WithCancel(ctx)
					l := b.manager.Lock(cancellable, "key", time.Hour, worker)
					synctest.Wait()
					time.Sleep(2 * time.Second)
					if releaser == "same manager" {
						w.next.Store(&f)
						go func() { _ = holder.Unlock() }()
						synctest.Wait()
						cancel()
					} else {
						w.next.Store(&f)
						cancel()
						synctest.Wait()
						require.NoError(t, holder.Unlock())
					}
					l.Wait()
					time.Sleep(time.Second)
					require.False(t, b.server.Exists("key"), "the line stands until the lease ends")
					require.Zero(t, waiters(t, b.client, "key"))
				}
			})
		})
	}
}

func TestEqualValuesExcludeEachOtherInAQuorum(t *testing.T) {
	ns := startNodes(t, 3)
	a, c := ns.manager(), ns.manager()
	holder := acquire(t, a, "key", time.Minute, worker)
	_, err := c.TryLock(ctx, "key", time.Minute, worker)
	require.ErrorIs(t, err, redislock.ErrNotAcquired)
	require.NoError(t, holder.Extend(ctx, time.Minute), "its keys were removed")
	require.NoError(t, holder.Unlock())
	lost := acquire(t, a, "lost", 100*time.Millisecond, worker)
	<-lost.Done()
	later := acquire(t, c, "lost", time.Minute, worker)
	require.ErrorIs(t, lost.Unlock(), redislock.ErrLost)
	require.NoError(t, later.Extend(ctx, time.Minute), "the later lock's keys were removed")
	require.NoError(t, later.Unlock())
	ns.requireClean("key")
}
