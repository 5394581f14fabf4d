package redislock_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// How long calls take, whatever the client's time-outs are: G13.

// kindsOfClients are bubbles whose clients wait for long, or for ever.
func kindsOfClients() map[string]*bubble {
	return map[string]*bubble{
		"default":                {},
		"no time-outs":           {options: func(o *redis.Options) { o.ReadTimeout, o.WriteTimeout = -1, -1 }},
		"no deadlines":           {options: func(o *redis.Options) { o.ReadTimeout, o.WriteTimeout = -2, -2 }},
		"long time-outs":         {options: func(o *redis.Options) { o.ReadTimeout, o.DialTimeout = time.Minute, time.Minute }},
		"many retries":           {options: func(o *redis.Options) { o.MaxRetries = 10 }},
		"wrapped":                {wrapped: true},
		"wrapped, no time-outs":  {wrapped: true, options: func(o *redis.Options) { o.ReadTimeout = -1 }},
		"contexts, no time-outs": {options: func(o *redis.Options) { o.ReadTimeout, o.ContextTimeoutEnabled = -1, true }},
	}
}

// onKindsOfClients runs a test with each. Their pools are large: the client keeps timers for
// those that wait for a connection, and must not carry them from one bubble to another.
func onKindsOfClients(t *testing.T, test func(t *testing.T, b *bubble)) {
	for name, b := range kindsOfClients() {
		change := b.options
		b.options = func(o *redis.Options) {
			o.PoolSize = 200
			if change != nil {
				change(o)
			}
		}
		t.Run(name, func(t *testing.T) { inBubbleOf(t, b, test) })
	}
}

// takes checks how long a call takes at most.
func takes(t *testing.T, most time.Duration, call func()) {
	t.Helper()
	began := time.Now()
	call()
	require.LessOrEqual(t, time.Since(began), most)
}

// Redis stands still. Contexts that have no end do not make a call endless.
func TestCallsReturnInTimeWhileRedisStandsStill(t *testing.T) {
	onKindsOfClients(t, func(t *testing.T, b *bubble) {
		m := b.manager
		long, short := acquire(t, m, "long", time.Hour), acquire(t, m, "short", 2*time.Second)
		for range 10 { // whatever was begun before may be in the way
			m.Lock(ctx, "nobody waits", time.Hour)
		}
		b.frozen.Store(true)

		takes(t, 5*time.Second, func() {
			_, err := m.TryLock(ctx, "key", time.Hour)
			require.ErrorContains(t, err, "no answer from Redis within 5s")
			require.NotErrorIs(t, err, redislock.ErrNotAcquired)
		})
		takes(t, time.Second, func() {
			_, err := m.TryLock(ctx, "key", time.Second)
			require.ErrorContains(t, err, "no answer from Redis within 1s")
			require.ErrorIs(t, err, redislock.ErrNotAcquired)
		})
		takes(t, 100*time.Millisecond, func() {
			within, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			defer cancel()
			require.ErrorIs(t, m.Lock(within, "key", time.Hour).Wait().Err, context.DeadlineExceeded)
		})
		takes(t, 100*time.Millisecond, func() {
			within, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			defer cancel()
			require.ErrorIs(t, long.Extend(within, time.Hour), context.DeadlineExceeded)
		})
		takes(t, 10*time.Second, func() {
			require.ErrorContains(t, long.Extend(ctx, time.Hour), "no answer from Redis within 10s")
			require.NoError(t, long.Err())
		})
		takes(t, 0, func() { require.ErrorIs(t, short.Unlock(), redislock.ErrLost) })
		takes(t, 10*time.Second, func() {
			require.ErrorContains(t, long.Unlock(), "no answer from Redis within 10s, the manager goes on until the lease ends")
		})
		takes(t, 2*time.Second, func() { require.Error(t, m.Close()) })
		takes(t, 0, func() { require.NoError(t, m.Close()) })
	})
}

// What Unlock and Extend wait for ends with the lease.
func TestCallsReturnAsTheLeaseEndsWhileRedisStandsStill(t *testing.T) {
	onKindsOfClients(t, func(t *testing.T, b *bubble) {
		m := b.manager
		unlocked, extended := acquire(t, m, "unlocked", 3*time.Second), acquire(t, m, "extended", 3*time.Second)
		b.frozen.Store(true)
		takes(t, 3*time.Second, func() {
			err := unlocked.Unlock()
			require.ErrorContains(t, err, "no answer from Redis within 3s")
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
		extended2 := acquireNow(t, b, "extended2")
		takes(t, 3*time.Second, func() { require.ErrorIs(t, extended2.Extend(ctx, time.Hour), redislock.ErrLost) })
		require.ErrorIs(t, extended.Extend(ctx, time.Hour), redislock.ErrLost)
		_ = m.Close()
	})
}

// Nobody else sends what a manager that is closed has still to release: who does it
// himself does not wait for Redis longer than he would otherwise.
func TestUnlockIsBoundedAmidCloseAndAfterIt(t *testing.T) {
	for name, afterwards := range map[string]bool{"amid": false, "after": true} {
		t.Run(name, func(t *testing.T) {
			onKindsOfClients(t, func(t *testing.T, b *bubble) {
				m := b.manager
				lost, held, long := acquire(t, m, "lost", time.Second), acquire(t, m, "held", time.Hour), acquire(t, m, "long", time.Hour)
				time.Sleep(time.Second)
				short := acquire(t, m, "short", 5*time.Second)
				b.frozen.Store(true)
				if afterwards {
					_ = m.Close()
				} else {
					go func() { _ = m.Close() }()
					time.Sleep(500 * time.Millisecond)
				}
				within := func() context.Context {
					within, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
					t.Cleanup(cancel)
					return within
				}
				takes(t, 100*time.Millisecond, func() { require.ErrorIs(t, held.Release(within()), context.DeadlineExceeded) })
				takes(t, 100*time.Millisecond, func() { require.ErrorIs(t, lost.Release(within()), redislock.ErrLost) })
				takes(t, 5*time.Second, func() { require.Error(t, short.Unlock()) })
				takes(t, 10*time.Second, func() { require.Error(t, long.Unlock()) })
			})
		})
	}
}

// What Close cuts off, while Redis stands still, has failed for that, and not because a
// context of the caller's has ended.
func TestWhatCloseCutsOffSaysSo(t *testing.T) {
	inBubbleOf(t, &bubble{options: func(o *redis.Options) { o.ReadTimeout = 3 * time.Second }}, func(t *testing.T, b *bubble) {
		m := b.manager
		held := acquire(t, m, "held", time.Hour)
		b.frozen.Store(true)
		answers := make(chan error, 2)
		go func() { answers <- held.Extend(ctx, 2*time.Hour) }()
		go func() {
			_, err := m.TryLock(ctx, "key", time.Hour)
			answers <- err
		}()
		time.Sleep(time.Second)
		require.Error(t, m.Close())
		for range 2 {
			err := <-answers
			require.Error(t, err)
			require.NotErrorIs(t, err, context.Canceled)
		}
	})
}

// Nor does it take long to be told that keyspace events cannot be had.
func TestRequiredEventsOfARedisThatStandsStill(t *testing.T) {
	onKindsOfClients(t, func(t *testing.T, b *bubble) {
		b.frozen.Store(true)
		required := redislock.WithKeyspaceEvents(redislock.KeyspaceRequired)
		var clients []redis.UniversalClient
		var o redis.Options
		for node := range 3 {
			o = redis.Options{Addr: fmt.Sprint("127.0.0.1:", 1+node), Dialer: b.dial}
			b.options(&o)
			client := redis.NewClient(&o)
			defer client.Close()
			clients = append(clients, b.asWrapped(client))
		}
		o = redis.Options{}
		b.options(&o)
		cluster := redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: []string{"127.0.0.1:1", "127.0.0.1:2"}, Dialer: b.dial,
			ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout, MaxRetries: o.MaxRetries, PoolSize: o.PoolSize,
		})
		defer cluster.Close()
		takes(t, 5*time.Second, func() {
			_, err := redislock.NewLockManager(clients[0], required)
			require.Error(t, err)
		})
		takes(t, 5*time.Second, func() {
			_, err := redislock.NewQuorumManager(clients, required)
			require.ErrorContains(t, err, "keyspace events on 0 of 3 nodes")
		})
		takes(t, 5*time.Second, func() {
			_, err := redislock.NewLockManager(cluster, required)
			require.Error(t, err)
		})
	})
}

// acquireNow acquires a lock of 3 s before Redis stands still once more.
func acquireNow(t *testing.T, b *bubble, key string) *redislock.Lock {
	t.Helper()
	b.frozen.Store(false)
	l := b.manager.Lock(ctx, key, 3*time.Second)
	require.NoError(t, l.Wait().Err)
	b.frozen.Store(true)
	return l
}

// Nobody is there: a call to a Redis that was never heard from fails soon, and who
// waits for nobody in particular does not take long either.
func TestFirstCallsFailSoonWhereConnectionsAreRefused(t *testing.T) {
	onKindsOfClients(t, func(t *testing.T, b *bubble) {
		b.refused.Store(true)
		takes(t, 2*time.Second, func() {
			err := b.manager.Lock(ctx, "key", time.Hour).Wait().Err
			require.ErrorContains(t, err, "connection refused")
		})
		takes(t, 2*time.Second, func() {
			_, err := b.manager.TryLock(ctx, "key", time.Hour)
			require.ErrorContains(t, err, "connection refused")
		})
		takes(t, 2*time.Second, func() { _ = b.manager.Close() })
		b.refused.Store(false)
	})
}

// Likewise of a quorum, whether all nodes refuse connections or so many that no majority
// is left.
func TestFirstCallsToAQuorumFailSoonWhereConnectionsAreRefused(t *testing.T) {
	for _, refusing := range []int{2, 3} {
		t.Run(fmt.Sprint(refusing, " of 3"), func(t *testing.T) {
			onKindsOfClients(t, func(t *testing.T, b *bubble) {
				b.refused.Store(true)
				well := &bubble{server: b.server}
				var clients []redis.UniversalClient
				for node := range 3 {
					o := redis.Options{Addr: fmt.Sprint("127.0.0.1:", 1+node), Dialer: b.dial}
					b.options(&o)
					if node >= refusing {
						o.Dialer = well.dial
					}
					client := redis.NewClient(&o)
					defer client.Close()
					clients = append(clients, b.asWrapped(client))
				}
				m, err := redislock.NewQuorumManager(clients)
				require.NoError(t, err)
				defer m.Close() // also after a failure, as goroutines that are left are a panic
				for range 2 {
					takes(t, 2*time.Second, func() {
						err := m.Lock(ctx, "key", time.Hour).Wait().Err
						require.ErrorContains(t, err, "no majority")
						require.ErrorContains(t, err, "connection refused")
					})
					takes(t, 2*time.Second, func() {
						_, err := m.TryLock(ctx, "key", time.Hour)
						require.ErrorContains(t, err, "no majority")
					})
				}
				takes(t, 2*time.Second, func() { _ = m.Close() })
			})
		})
	}
}

// And of one that was heard from, and may come back, a little later.
func TestCallsFailInTimeWhereRedisHasGone(t *testing.T) {
	onKindsOfClients(t, func(t *testing.T, b *bubble) {
		l := acquire(t, b.manager, "held", time.Hour)
		b.refused.Store(true)
		b.cut()
		takes(t, 5*time.Second, func() { require.Error(t, b.manager.Lock(ctx, "key", time.Hour).Wait().Err) })
		takes(t, 5*time.Second, func() {
			_, err := b.manager.TryLock(ctx, "key", time.Hour)
			require.Error(t, err)
		})
		takes(t, 10*time.Second, func() { require.Error(t, l.Extend(ctx, time.Hour)) })
		takes(t, 10*time.Second, func() { require.Error(t, l.Unlock()) })
		takes(t, 2*time.Second, func() { _ = b.manager.Close() })
		b.refused.Store(false)
	})
}

// Whoever dials gets no answer, not even that there is nobody.
func TestCallsReturnInTimeWhereDialsAreNotAnswered(t *testing.T) {
	onKindsOfClients(t, func(t *testing.T, b *bubble) {
		b.hole.Store(true)
		takes(t, 5*time.Second, func() {
			_, err := b.manager.TryLock(ctx, "key", time.Hour)
			require.Error(t, err)
		})
		takes(t, 100*time.Millisecond, func() {
			within, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			defer cancel()
			require.ErrorIs(t, b.manager.Lock(within, "key", time.Hour).Wait().Err, context.DeadlineExceeded)
		})
		takes(t, 2*time.Second, func() { _ = b.manager.Close() })
		b.hole.Store(false)
	})
}

// Time and again all connections go silent, and new ones work at once. Those that are
// silent keep a place, some for ever, and yet all is sent.
func TestSilentConnectionsDoNotMakeTheManagerDeaf(t *testing.T) {
	onKindsOfClients(t, func(t *testing.T, b *bubble) {
		renewed := acquire(t, b.manager, "renewed", 3*time.Second, redislock.WithAutoRenew(time.Hour))
		for outage := range 20 {
			b.silence()
			l := b.manager.Lock(ctx, fmt.Sprint("key", outage), time.Hour)
			r := l.Wait()
			require.NoError(t, r.Err)
			require.Less(t, r.Waited, time.Second, "outage %d", outage)
			time.Sleep(300 * time.Millisecond)
			require.NoError(t, renewed.Err(), "outage %d", outage)
		}
		_ = b.manager.Close()
		b.end(t)
		b.begin(t)
	})
}

// The way takes long: nothing is taken for silent that is not, not even the first time.
func TestNothingIsSentTwiceOverALongWay(t *testing.T) {
	for _, way := range []time.Duration{250 * time.Millisecond, 800 * time.Millisecond} {
		t.Run(way.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				other := b.another(t)
				b.delay.Store(int64(way))
				var claims, extensions, releases atomic.Int32
				b.client.AddHook(pipelineHook(func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
					err := next(ctx, cmds)
					for _, cmd := range cmds {
						switch {
						case cmd.Name() == "set", isScript(cmd, "acquire.lua"):
							claims.Add(1)
						case isScript(cmd, "extend.lua"):
							extensions.Add(1)
						case isRelease(cmd):
							releases.Add(1)
						}
					}
					return err
				}))
				l := acquire(t, b.manager, "renewed", 30*time.Second, redislock.WithAutoRenew(time.Hour))
				time.Sleep(55 * time.Second)
				require.NoError(t, l.Unlock())
				for i := range 3 {
					require.NoError(t, acquire(t, b.manager, fmt.Sprint("key", i), time.Minute).Unlock())
				}
				require.EqualValues(t, 4, claims.Load(), "claims")
				require.EqualValues(t, 5, extensions.Load(), "renewals")
				require.EqualValues(t, 4, releases.Load(), "releases")

				holder := acquire(t, other.manager, "taken", time.Hour)
				waiter := b.manager.Lock(ctx, "taken", time.Hour)
				time.Sleep(12 * way) // to find it taken, to connect, to subscribe, and to join
				require.Equal(t, 1, waiters(t, other.client, "taken"))
				require.NoError(t, holder.Unlock())
				synctest.Wait()
				require.NotZero(t, waiter.Token(), "the subscription is not up")
				require.NoError(t, waiter.Unlock())
			})
		})
	}
}

// isScript tells a call of a script, by its text or its digest.
func isScript(cmd redis.Cmder, name string) bool {
	args := cmd.Args()
	return len(args) > 1 && (args[1] == redislock.ScriptText(name) || args[1] == redislock.ScriptDigest(name))
}

// A TTL that is shorter than the way there cannot be held, and the error says why.
func TestErrorSaysThatTheWayIsLongerThanTheTTL(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.delay.Store(int64(60 * time.Millisecond))
		for range 2 { // the first one connects
			require.NoError(t, acquire(t, b.manager, "warm", time.Minute).Unlock())
		}
		_, err := b.manager.TryLock(ctx, "key", 50*time.Millisecond)
		require.ErrorIs(t, err, redislock.ErrNotAcquired)
		require.ErrorContains(t, err, "a round trip to Redis takes 60ms, and the TTL is 50ms")
		err = b.manager.Lock(ctx, "key", 50*time.Millisecond).Wait().Err
		require.ErrorIs(t, err, redislock.ErrNotAcquired)
		require.ErrorContains(t, err, "a round trip to Redis takes 60ms, and the TTL is 50ms")
	})
}

// A connection swallows a release: it goes over another one, and whoever waits, here or
// elsewhere, does not wait for the lease to end.
func TestReleaseOutlivesASilentConnection(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		other := b.another(t)
		l := acquire(t, b.manager, "free", time.Hour)
		b.silence()
		takes(t, time.Second, func() { require.NoError(t, l.Unlock()) })
		require.False(t, b.server.Exists("free"))

		l = acquire(t, b.manager, "awaited elsewhere", time.Hour)
		elsewhere := other.manager.Lock(ctx, "awaited elsewhere", time.Hour)
		synctest.Wait()
		b.silence()
		takes(t, time.Second, func() { require.NoError(t, l.Unlock()) })
		require.NoError(t, elsewhere.Wait().Err)
		require.NoError(t, elsewhere.Unlock())

		l = acquire(t, b.manager, "awaited", time.Hour)
		elsewhere = other.manager.Lock(ctx, "awaited", time.Hour)
		synctest.Wait()
		here := b.manager.Lock(ctx, "awaited", time.Hour)
		synctest.Wait()
		b.silence()
		takes(t, time.Second, func() { require.NoError(t, l.Unlock()) })
		require.NoError(t, elsewhere.Wait().Err)
		require.NoError(t, elsewhere.Unlock())
		takes(t, 10*time.Second, func() { require.NoError(t, here.Wait().Err) })
		require.NoError(t, here.Unlock())
	})
}

// The answer to a release is late, and so is the news in it that the next one here has
// the lock.
func TestGrantInALateAnswerToARelease(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := newWire(b)
		l := acquire(t, b.manager, "key", time.Hour)
		next := b.manager.Lock(ctx, "key", time.Hour)
		synctest.Wait()
		w.next.Store(&fate{after: late})
		takes(t, time.Second, func() { require.NoError(t, l.Unlock()) })
		takes(t, time.Second, func() { require.NoError(t, next.Wait().Err) })
		time.Sleep(2 * late)
		require.NoError(t, next.Err())
		require.NoError(t, next.Unlock())
		require.False(t, b.server.Exists("key"))
	})
}

// A copy of a release by a value of the caller's choice might release the next lock that
// goes by it.
func TestReleaseByACallersValueIsSentOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := newWire(b)
		l := acquire(t, b.manager, "key", time.Hour, redislock.WithValue("mine"))
		w.next.Store(&fate{before: late})
		require.NoError(t, l.Unlock())
		next := acquire(t, b.manager, "key", time.Hour, redislock.WithValue("mine"))
		time.Sleep(2 * late)
		require.NoError(t, next.Extend(ctx, time.Hour), "a late release took the next lock away")
		require.NoError(t, next.Unlock())
	})
}

// Unlock has given up, and the next call here on the same key does not wait for the
// lease of the lock before it.
func TestNextLockAfterAnUnlockThatGaveUp(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		l := acquire(t, b.manager, "key", time.Hour)
		b.frozen.Store(true)
		require.ErrorContains(t, l.Unlock(), "no answer from Redis")
		next := b.manager.Lock(ctx, "key", time.Hour)
		time.Sleep(time.Second)
		b.frozen.Store(false)
		takes(t, 10*time.Second, func() { require.NoError(t, next.Wait().Err) })
		require.NoError(t, next.Unlock())
	})
}

// TryLock gave up, and the manager was closed, while Redis stood still: what it has
// sent is carried out later, and undone, also if the process has ended by then.
func TestTryLockThatGaveUpLeavesNothing(t *testing.T) {
	for name, ends := range map[string]bool{"process lives on": false, "process ends": true} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			observer, client := server.Client(nil), server.Client(nil)
			m := newManager(t, client)
			allAtOnce(t, m, 200, func(i int) string { return fmt.Sprint("warm", i) }) // over two connections
			server.Freeze()
			within, cancel := context.WithTimeout(ctx, 100*time.Millisecond) // before it is sent over another connection
			defer cancel()
			_, err := m.TryLock(within, "key", time.Hour)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, m.Close(), "no answer from Redis")
			if ends {
				require.NoError(t, client.Close())
			}
			server.Thaw()
			time.Sleep(50 * time.Millisecond) // all has been carried out that there is
			requireClean(t, observer)
			requireNoGoroutines(t)
		})
	}
}

// Nothing is kept for ever by a connection that is silent, if the client is one whose
// time-outs can be changed.
func TestNothingHangsForEver(t *testing.T) {
	onKindsOfClients(t, func(t *testing.T, b *bubble) {
		if b.wrapped && b.client.Options().ReadTimeout == 0 {
			return
		}
		holder := acquire(t, b.manager, "key", time.Hour)
		b.manager.Lock(ctx, "key", time.Hour) // for a subscription
		synctest.Wait()
		b.frozen.Store(true)
		b.manager.Lock(ctx, "other", time.Hour)
		time.Sleep(20 * time.Second)
		require.LessOrEqual(t, b.manager.Requests(), 2*8, "what stands still piles up")
		require.NoError(t, holder.Err())
		_ = b.manager.Close()
		time.Sleep(time.Minute)
		for _, stack := range goroutines() { // other tests may have some
			require.NotContains(t, stack, "synctest bubble")
		}
	})
}

// An application has used several connections at a time, and all have gone silent since.
// A renewal is tried over one after the other.
func TestRenewalOutlivesManySilentConnections(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		l := acquire(t, b.manager, "key", 3*time.Second, redislock.WithAutoRenew(time.Hour))
		b.delay.Store(int64(10 * time.Millisecond))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				pipe := b.client.Pipeline()
				pipe.Get(ctx, "something")
				_, _ = pipe.Exec(ctx)
			})
		}
		wg.Wait()
		b.delay.Store(0)
		b.silence()
		time.Sleep(10 * time.Second)
		require.NoError(t, l.Err())
		require.NoError(t, l.Unlock())
	})
}

// The connection of the subscription breaks, and for a moment there is no other: the
// manager knows at once that it hears nothing, and is back soon.
func TestSubscriptionIsBackSoonAfterAHole(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		other := b.another(t)
		holder := acquire(t, other.manager, "key", time.Hour)
		waiter := b.manager.Lock(ctx, "key", time.Hour)
		synctest.Wait()
		require.True(t, b.manager.Listens("key"))

		b.hole.Store(true)
		_ = b.ear.Load().Conn.Close()
		time.Sleep(time.Millisecond)
		require.False(t, b.manager.Listens("key"), "counts as up, and is not there")
		time.Sleep(50 * time.Millisecond)
		b.hole.Store(false)
		time.Sleep(250 * time.Millisecond)
		require.True(t, b.manager.Listens("key"))

		require.NoError(t, holder.Unlock())
		synctest.Wait()
		require.NotZero(t, waiter.Token())
		require.NoError(t, waiter.Unlock())
	})
}

// A waiter that lives was skipped: nobody was heard to listen for it. Its subscription
// is looked at, and made anew if it is silent.
func TestSkippedWaiterLooksAtItsSubscription(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		holder := acquire(t, b.manager, "key", 5*time.Second)
		waiter := b.manager.Lock(ctx, "key", time.Hour)
		synctest.Wait()
		ear := b.ear.Load()
		ear.silent.Store(true)
		queue, _ := redislock.KeysOf("key")
		line, err := b.server.ZMembers(queue)
		require.NoError(t, err)
		_, err = b.server.ZRem(queue, line[0]) // as if skipped
		require.NoError(t, err)
		b.manager.LookAt("key")
		time.Sleep(1200 * time.Millisecond)
		require.NotSame(t, ear, b.ear.Load(), "the silent connection is trusted")
		require.True(t, b.manager.Listens("key"))
		require.NoError(t, holder.Unlock())
		serve(t, waiter)
	})
}
