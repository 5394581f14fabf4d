package redislock_test

import (
	"context"
	"slices"
	"strings"
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
		// A look of the holder's that its grant has crossed may have put it into the line
		// again, for a moment.
		eventually(t, "the other has joined", func() bool {
			queue, _ := redislock.KeysOf("key")
			return slices.ContainsFunc(client.ZRange(ctx, queue, 0, -1).Val(), func(member string) bool {
				return strings.HasPrefix(member, b.ID()+":")
			})
		})
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

// A look that was under way as the lock was granted does not leave it in the line, where it
// would be granted again when it is over.
func TestChosenValueIsNotGrantedTwice(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := newWire(b)
		holder := acquire(t, b.another(t).manager, "key", time.Hour)
		l := b.manager.Lock(ctx, "key", 10*time.Second, worker)
		awaitWaiters(t, b.client, "key", 1)
		time.Sleep(time.Second)
		w.next.Store(&fate{before: 100 * time.Millisecond})
		b.manager.LookAt("key")
		time.Sleep(50 * time.Millisecond)
		require.NoError(t, holder.Unlock())
		require.NoError(t, l.Wait().Err)
		require.Zero(t, waiters(t, b.client, "key"))
		time.Sleep(time.Second)
		require.Zero(t, waiters(t, b.client, "key"), "it stands in the line that it has left")
		require.Equal(t, "worker", b.client.Get(ctx, "key").Val())
		require.NoError(t, l.Extend(ctx, time.Minute))
		require.NoError(t, l.Unlock())
	})
}

// A lock that was lost, and is unlocked late, leaves a later lock by the same value
// alone, whether that is of the same manager or of another.
func TestUnlockOfALostLockSparesALaterOneByTheSameValue(t *testing.T) {
	for how, lose := range map[string]func(b *bubble, l *redislock.Lock){
		"its lease is over": func(*bubble, *redislock.Lock) { time.Sleep(time.Hour) },
		"its key was taken away": func(b *bubble, l *redislock.Lock) {
			b.server.Del("key")
			_ = l.Extend(ctx, time.Hour)
		},
	} {
		for _, managers := range []string{"same manager", "another manager"} {
			t.Run(how+", "+managers, func(t *testing.T) {
				inBubble(t, func(t *testing.T, b *bubble) {
					m := b.manager
					if managers == "another manager" {
						m = b.another(t).manager
					}
					lost := acquire(t, b.manager, "key", time.Hour, worker)
					lose(b, lost)
					require.True(t, closed(lost.Done()))
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

// A release whose time has come too late, as Redis was out of reach, slow, or had too much
// to do, takes away nothing of what has the same value since.
func TestLateReleaseSparesALaterLockByTheSameValue(t *testing.T) {
	const ttl = 5 * time.Second
	for name, delay := range map[string]func(b *bubble, w *wire){
		"it is sent again": func(b *bubble, w *wire) { w.breakReleases(ttl) },
		"it waits its turn": func(b *bubble, w *wire) {
			for _, key := range []string{"one", "another"} { // as many requests as may be under way
				w.next.Store(&fate{after: late})
				b.manager.Lock(ctx, key, time.Hour)
				synctest.Wait()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				other, w := b.another(t), newWire(b)
				require.NoError(t, acquire(t, b.manager, "warm", time.Minute).Unlock())
				l := acquire(t, b.manager, "key", ttl, worker)
				time.Sleep(time.Until(l.ValidUntil()) - 100*time.Millisecond) // not lost yet
				delay(b, w)
				go func() { _ = l.Unlock() }()
				later := acquire(t, other.manager, "key", time.Minute, worker)
				time.Sleep(10 * time.Second)
				require.NoError(t, later.Extend(ctx, time.Minute), "the later lock's key was removed")
				require.NoError(t, later.Unlock())
			})
		})
	}
}

// Likewise the release of one whose answer was lost, so that he does not know what he
// has, and who has gone since.
func TestLateReleaseOfOneWhoHasGoneSparesALaterLockByTheSameValue(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		other, w := b.another(t), newWire(b)
		require.NoError(t, acquire(t, b.manager, "warm", time.Minute).Unlock())
		w.next.Store(&fate{after: 100 * time.Millisecond, lost: true})
		cancellable, cancel := context.WithCancel(ctx)
		l := b.manager.Lock(cancellable, "key", time.Second, worker)
		time.Sleep(50 * time.Millisecond)
		cancel()
		w.breakReleases(1500 * time.Millisecond)
		require.ErrorIs(t, l.Wait().Err, context.Canceled)
		later := acquire(t, other.manager, "key", time.Minute, worker)
		time.Sleep(10 * time.Second)
		require.NoError(t, later.Extend(ctx, time.Minute), "the later lock's key was removed")
		require.NoError(t, later.Unlock())
	})
}

// breakReleases has no release get to Redis for a while: its connection breaks.
func (w *wire) breakReleases(d time.Duration) {
	w.broken.Store(true)
	time.AfterFunc(d, func() { w.broken.Store(false) })
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
