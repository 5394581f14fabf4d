package redislock_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
)

// Without any event or message, the key of a dead holder is taken over within
// milliseconds of its expiry.
func TestDeadHoldersLeaseIsTakenOverWhenItEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		require.NoError(t, b.server.Set("key", "a holder that died"))
		b.server.SetTTL("key", 31*time.Second)
		start := time.Now()
		l := b.manager.Lock(ctx, "key", 40*time.Second)
		require.NoError(t, l.Wait().Err)
		require.WithinDuration(t, start.Add(31*time.Second), time.Now(), 5*time.Millisecond)
		require.NoError(t, l.Unlock())
	})
}

// bsm/redislock #74: a wait is not capped by the TTL.
func TestWaitIsNotTiedToTheTTL(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		holder := acquire(t, b.manager, "key", time.Hour)
		waiter := b.manager.Lock(ctx, "key", time.Second)
		time.Sleep(59 * time.Minute)
		require.NoError(t, holder.Unlock())
		released := time.Now()
		r := waiter.Wait()
		require.NoError(t, r.Err)
		require.Equal(t, released, time.Now(), "the reply to the release made it the holder")
		require.WithinDuration(t, time.Now().Add(time.Second), r.ValidUntil, 20*time.Millisecond)
		require.NoError(t, waiter.Unlock())
	})
}

// A holder with a short lease that was handed the lock by one with a long lease,
// and died: those behind do not wait for the end of the long lease. Without keyspace
// events, as who asks for them, and is refused, looks at the line when he asks again.
func TestShortLeaseInALineOfLongOnes(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		other, err := redislock.NewLockManager(b.client, redislock.WithKeyspaceEvents(redislock.KeyspaceOff))
		require.NoError(t, err)
		holder := acquire(t, b.manager, "key", time.Hour)
		short := b.manager.Lock(ctx, "key", time.Second)
		synctest.Wait()
		behind := other.Lock(ctx, "key", time.Hour)
		time.Sleep(time.Minute)
		require.NoError(t, holder.Unlock())
		require.NoError(t, short.Wait().Err) // and is never released
		start := time.Now()
		require.NoError(t, behind.Wait().Err)
		require.LessOrEqual(t, time.Since(start), 2*time.Second)
		require.NoError(t, behind.Unlock())
		require.NoError(t, other.Close())
	})
}

// G11: one look per lease, however many wait.
func TestParkedWaitersAreQuiet(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		holder := acquire(t, b.manager, "key", 30*time.Second, redislock.WithAutoRenew(time.Hour))
		var parked []*redislock.Lock
		for range 500 {
			parked = append(parked, b.manager.Lock(ctx, "key", 30*time.Second))
		}
		synctest.Wait()
		before := b.server.CommandCount()
		time.Sleep(10 * time.Minute)
		// Commands inside scripts count too: ten in a look, three in a renewal, two in a
		// probe of the subscription.
		looks, renewals, pings, probes := 10*60/30, 10*60/10, 10*60/3, 10*60/10
		// This server has no CONFIG. It is asked for it again, ever more rarely, and the line
		// is looked after then.
		again := 10*60/30 + 5
		require.LessOrEqual(t, b.server.CommandCount()-before, looks*11+renewals*4+pings+probes*3+again*12)
		require.NoError(t, holder.Unlock())
		for _, l := range parked {
			require.NoError(t, l.Wait().Err)
			require.NoError(t, l.Unlock())
		}
	})
}

// Those who stand in the line wait for a Redis that is not ready to serve.
func TestWaitersOutlastALoadingRedis(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		require.NoError(t, b.server.Set("key", "a holder that died"))
		b.server.SetTTL("key", 2*time.Second)
		l := b.manager.Lock(ctx, "key", 30*time.Second)
		time.Sleep(time.Second)
		b.server.SetError("LOADING Redis is loading the dataset in memory")
		time.Sleep(time.Minute)
		b.server.SetError("")
		start := time.Now()
		require.NoError(t, l.Wait().Err)
		require.LessOrEqual(t, time.Since(start), time.Second)
		require.NoError(t, l.Unlock())
	})
}

// And so does a new caller while Redis says that it will be ready: for as long as
// his context lasts.
func TestNewCallersOutlastAFailover(t *testing.T) {
	for _, refusal := range []string{
		"LOADING Redis is loading the dataset in memory",
		"READONLY You can't write against a read only replica.",
		"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
		"CLUSTERDOWN The cluster is down",
	} {
		inBubble(t, func(t *testing.T, b *bubble) {
			b.server.SetError(refusal)
			short, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			impatient := b.manager.Lock(short, "key", 30*time.Second)
			long, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			l := b.manager.Lock(long, "key", 30*time.Second)
			r := impatient.Wait()
			require.ErrorIs(t, r.Err, context.DeadlineExceeded)
			require.ErrorContains(t, r.Err, refusal)
			require.Equal(t, time.Minute, r.Waited)
			b.server.SetError("")
			start := time.Now()
			require.NoError(t, l.Wait().Err)
			require.LessOrEqual(t, time.Since(start), time.Second)
			require.NoError(t, l.Unlock())
		})
	}
}

// A caller of TryLock finds that the key was freed unannounced, and makes the
// first in line the holder: that one is told there and then.
func TestWaiterServedByATryLockIsToldAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		require.NoError(t, b.server.Set("key", "foreign"))
		b.server.SetTTL("key", time.Hour)
		l := b.manager.Lock(ctx, "key", time.Minute)
		time.Sleep(10 * time.Second)
		b.server.Del("key")
		_, err := b.manager.TryLock(ctx, "key", time.Minute)
		require.ErrorIs(t, err, redislock.ErrNotAcquired)
		start := time.Now()
		require.NoError(t, l.Wait().Err)
		require.Equal(t, start, time.Now())
		require.NoError(t, l.Unlock())
	})
}

// grantsOf returns what publishes messages that grant the key to the first in line,
// then or later.
func grantsOf(t *testing.T, b *bubble, key string) func(at time.Time) {
	queue, _ := redislock.KeysOf(key)
	members, err := b.client.ZRange(ctx, queue, 0, -1).Result()
	require.NoError(t, err)
	member := strings.Split(members[0], ":")
	return func(at time.Time) {
		message := fmt.Sprintf("7 %d %d %s %d %s%s", at.Unix(), at.Nanosecond()/1000, member[2], len(key), key, member[3])
		receivers, err := b.client.Publish(ctx, "redislock:grant:"+member[0], message).Result()
		require.NoError(t, err)
		require.EqualValues(t, 1, receivers)
		synctest.Wait()
	}
}

// A grant message that is older than the last word from Redis that the waiter
// still waits, is of a grant that was lost again.
func TestOutdatedGrantMessageIsIgnored(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		holder := acquire(t, b.manager, "key", time.Minute)
		waiter := b.manager.Lock(ctx, "key", time.Minute)
		synctest.Wait()
		grant := grantsOf(t, b, "key")
		grant(time.Now().Add(-time.Second))
		require.Zero(t, waiter.Token(), "believes an outdated message")
		require.NoError(t, holder.Unlock())
		require.NoError(t, waiter.Wait().Err)
		require.Greater(t, waiter.Token(), holder.Token())
		grant(time.Now()) // again, while it holds: no harm
		require.NoError(t, waiter.Unlock())
		grant(time.Now()) // and after that
		require.NoError(t, acquire(t, b.manager, "key", time.Minute).Unlock())
	})
}

// The signal of a loss comes a little before ValidUntil. Until then the key is not
// given back, not even if a message comes that nobody waits for any more.
func TestLateGrantOfALockJustLostGivesNothingAway(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		holder := acquire(t, b.manager, "key", time.Minute)
		l := b.manager.Lock(ctx, "key", time.Minute)
		synctest.Wait()
		grant := grantsOf(t, b, "key")
		require.NoError(t, holder.Unlock())
		require.NoError(t, l.Wait().Err)
		granted := time.Now()
		<-l.Done()
		require.True(t, time.Now().Before(l.ValidUntil()))
		grant(granted)
		got, _ := b.server.Get("key")
		require.Equal(t, l.Value(), got, "given away before ValidUntil")
		time.Sleep(time.Until(l.ValidUntil()) + time.Millisecond)
		grant(granted)
		require.False(t, b.server.Exists("key"), "the lock is known for longer than need be")
		require.ErrorIs(t, l.Unlock(), redislock.ErrLost)
	})
}

// A grant whose message was lost is found by whoever looks next, though another
// stands before him.
func TestLookFindsTheGrantOfANeighbour(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		require.NoError(t, b.server.Set("key", "foreign"))
		b.server.SetTTL("key", time.Second)
		first := b.manager.Lock(ctx, "key", time.Minute)
		second := b.manager.Lock(ctx, "key", time.Minute)
		synctest.Wait()
		queue, _ := redislock.KeysOf("key")
		members, err := b.client.ZRange(ctx, queue, 0, -1).Result()
		require.NoError(t, err)
		require.Len(t, members, 2)
		require.NoError(t, b.client.ZRem(ctx, queue, members[1]).Err())
		require.NoError(t, b.server.Set("key", second.Value()))
		b.server.SetTTL("key", time.Minute)
		start := time.Now()
		require.NoError(t, second.Wait().Err)
		require.LessOrEqual(t, time.Since(start), 1100*time.Millisecond)
		require.NoError(t, second.Unlock())
		require.NoError(t, first.Wait().Err)
		require.NoError(t, first.Unlock())
	})
}

// Without a subscription nobody can be handed the lock; but nobody hangs.
func TestWaitersGetTheLockWithoutASubscription(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.deaf.Store(true)
		require.NoError(t, b.server.Set("key", "a holder that died"))
		b.server.SetTTL("key", 5*time.Second)
		first := b.manager.Lock(ctx, "key", time.Minute)
		second := b.manager.Lock(ctx, "key", time.Minute)
		start := time.Now()
		require.NoError(t, first.Wait().Err)
		require.LessOrEqual(t, time.Since(start), 6*time.Second+100*time.Millisecond)
		start = time.Now()
		require.NoError(t, first.Unlock())
		require.NoError(t, second.Wait().Err)
		require.LessOrEqual(t, time.Since(start), time.Second+100*time.Millisecond)
		require.NoError(t, second.Unlock())
	})
}

// The key was freed unannounced, and the one who comes last in the line looks
// first: the lock goes to the one who came first all the same.
func TestWhoLooksFirstDoesNotPassTheLine(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		other, err := redislock.NewLockManager(b.client)
		require.NoError(t, err)
		require.NoError(t, b.server.Set("key", "foreign"))
		b.server.SetTTL("key", time.Hour)
		first := b.manager.Lock(ctx, "key", time.Hour)
		time.Sleep(time.Second)
		last := other.Lock(ctx, "key", time.Second) // looks every second
		time.Sleep(10 * time.Second)
		b.server.Del("key")
		start := time.Now()
		require.NoError(t, first.Wait().Err)
		require.LessOrEqual(t, time.Since(start), 1100*time.Millisecond)
		require.Zero(t, last.Token())
		require.NoError(t, first.Unlock())
		require.NoError(t, last.Wait().Err)
		require.NoError(t, last.Unlock())
		require.NoError(t, other.Close())
	})
}

// A waiter whose connection was down when its turn came was skipped. It is back
// in its place with its connection.
func TestWaiterSkippedWhileItsConnectionWasDown(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		m, err := redislock.NewLockManager(b.client, redislock.WithKeyspaceEvents(redislock.KeyspaceOff))
		require.NoError(t, err)
		holder := acquire(t, b.manager, "key", time.Hour)
		waiter := m.Lock(ctx, "key", time.Hour)
		time.Sleep(time.Second)
		b.deafen()
		time.Sleep(time.Second)
		require.NoError(t, holder.Unlock())
		require.False(t, b.server.Exists("key"), "handed to one who cannot hear")
		b.deaf.Store(false)
		start := time.Now()
		require.NoError(t, waiter.Wait().Err)
		require.LessOrEqual(t, time.Since(start), time.Second)
		require.NoError(t, waiter.Unlock())
		require.NoError(t, m.Close())
	})
}

// A member that a request left behind, which arrived after the client had given
// up on it, becomes the holder when its turn comes. The lock is given back;
// that of a value of the caller's choice, which has an odd number, has to run out.
func TestGrantForAForgottenLockIsGivenBack(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		other, err := redislock.NewLockManager(b.client)
		require.NoError(t, err)
		require.NoError(t, b.server.Set("foreign", "foreign"))
		waiter := b.manager.Lock(ctx, "foreign", time.Hour) // its manager listens
		synctest.Wait()
		queue, _ := redislock.KeysOf("foreign")
		members, err := b.client.ZRange(ctx, queue, 0, -1).Result()
		require.NoError(t, err)
		id, _, _ := strings.Cut(members[0], ":")
		for told, releaser := range map[string]*redislock.LockManager{"message": other, "reply": b.manager} {
			holder := acquire(t, releaser, "key", time.Hour)
			queue, _ := redislock.KeysOf("key")
			require.NoError(t, b.client.ZAdd(ctx, queue, redis.Z{Score: 1, Member: id + ":3600000:98:forgotten"}).Err())
			require.NoError(t, holder.Unlock())
			synctest.Wait()
			require.False(t, b.server.Exists("key"), "told by "+told)

			holder = acquire(t, releaser, "key", time.Hour)
			require.NoError(t, b.client.ZAdd(ctx, queue, redis.Z{Score: 1, Member: id + ":3600000:99:chosen"}).Err())
			require.NoError(t, holder.Unlock())
			synctest.Wait()
			require.True(t, b.server.Exists("key"), "told by "+told+": it may be another's by the same value")
			b.server.Del("key")
		}
		require.NoError(t, waiter.Unlock())
		require.NoError(t, other.Close())
	})
}

// Who leaves the line of a key that a foreign program holds leaves nothing, but
// for the fence of all keys.
func TestLastToLeaveTheLineClearsUp(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		require.NoError(t, b.server.Set("key", "foreign"))
		l := b.manager.Lock(ctx, "key", time.Hour)
		synctest.Wait()
		left := func() []string {
			return slices.DeleteFunc(b.server.Keys(), func(key string) bool { return key == redislock.FenceKey })
		}
		require.Len(t, left(), 3)
		require.NoError(t, l.Unlock())
		require.Equal(t, []string{"key"}, left())
	})
}

// Redis has lost the line, and others have begun a new one: those of the old are
// back ahead of them, in their old order, when one of them has looked.
func TestLineThatWasLostIsFormedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		other, err := redislock.NewLockManager(b.client)
		require.NoError(t, err)
		require.NoError(t, b.server.Set("key", "foreign"))
		b.server.SetTTL("key", 5*time.Second)
		line := []*redislock.Lock{b.manager.Lock(ctx, "key", time.Hour), b.manager.Lock(ctx, "key", time.Hour)}
		time.Sleep(2 * time.Second)
		b.server.FlushAll()
		require.NoError(t, b.server.Set("key", "foreign"))
		b.server.SetTTL("key", time.Hour)
		line = append(line, other.Lock(ctx, "key", time.Hour))
		time.Sleep(5 * time.Second)
		queue, _ := redislock.KeysOf("key")
		members, err := b.client.ZRange(ctx, queue, 0, -1).Result()
		require.NoError(t, err)
		require.Len(t, members, len(line))
		for i, l := range line {
			require.Contains(t, members[i], l.Value())
		}
		for _, l := range line {
			require.NoError(t, l.Unlock())
		}
		require.NoError(t, other.Close())
	})
}

// A line outlives the looks that those who stand in it take after it, however long
// they wait.
func TestLineIsKeptWhileItIsLookedAfter(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		const ttl = 10 * time.Second
		holder := acquire(t, b.manager, "key", ttl, redislock.WithAutoRenew(time.Hour))
		waiting := b.manager.Lock(ctx, "key", ttl)
		synctest.Wait()
		for range 100 {
			time.Sleep(3 * time.Second)
			for _, key := range b.server.Keys() {
				if key != "key" && key != redislock.FenceKey {
					rest := b.server.TTL(key)
					require.Greater(t, rest, 39*time.Second, "%s: too near to the next look", key)
					require.LessOrEqual(t, rest, ttl+time.Minute, key)
				}
			}
		}
		require.Len(t, b.server.Keys(), 4)
		require.NoError(t, holder.Unlock())
		require.NoError(t, waiting.Wait().Err)
		require.NoError(t, waiting.Unlock())
	})
}
