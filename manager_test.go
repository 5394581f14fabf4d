package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
)

func TestPrefixIsPartOfTheKey(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client, redislock.WithPrefix("app:"))
		l := acquire(t, m, "key", time.Minute)
		require.Equal(t, "app:key", l.Key())
		require.Equal(t, l.Value(), client.Get(ctx, "app:key").Val())
		require.NoError(t, l.Unlock())
	})
}

func TestForeignLockerExcludesAndIsExcluded(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client)
		l := acquire(t, m, "key", time.Minute)
		require.False(t, client.SetNX(ctx, "key", "foreign", time.Minute).Val())
		require.NoError(t, l.Unlock())

		require.True(t, client.SetNX(ctx, "key", "foreign", time.Minute).Val())
		_, err := m.TryLock(ctx, "key", time.Minute)
		require.ErrorIs(t, err, redislock.ErrNotAcquired)
		require.Equal(t, "foreign", client.Get(ctx, "key").Val())
		require.ErrorIs(t, l.Unlock(), redislock.ErrNotHeld)
		require.Equal(t, "foreign", client.Get(ctx, "key").Val(), "a stale unlock took another's lock")
	})
}

func TestNextInLineGetsTheLockWithTheRelease(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		for _, managers := range []string{"same manager", "another manager"} {
			t.Run(managers, func(t *testing.T) {
				m := newManager(t, client)
				m2 := m
				if managers == "another manager" {
					m2 = newManager(t, client)
				}
				first := acquire(t, m, "key", time.Minute)
				second := m2.Lock(ctx, "key", time.Minute)
				awaitWaiters(t, client, "key", 1)
				require.NoError(t, first.Unlock())
				// Not one moment at which the key is free.
				require.Equal(t, second.Value(), client.Get(ctx, "key").Val())
				r := soon(t, second)
				require.NoError(t, r.Err)
				require.Greater(t, r.Token, first.Token())
				require.WithinDuration(t, time.Now().Add(time.Minute), second.ValidUntil(), 5*time.Second)
				require.NoError(t, second.Unlock())
				requireClean(t, client)
			})
		}
	})
}

// 100 waiters over 4 managers, joined one after another, are served in exactly
// that order.
func TestFirstComeFirstServed(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		managers := managersOf(t, client, 4)
		holder := acquire(t, managers[0], "key", time.Minute)
		served := &turns{t: t}
		for i := range 100 {
			served.add(i, managers[i%4].Lock(ctx, "key", time.Minute))
			awaitWaiters(t, client, "key", i+1)
		}
		require.NoError(t, holder.Unlock())
		served.requireInOrder()
		requireClean(t, client)
	})
}

// Calls of one goroutine are served in the order of the calls, although nobody
// waits for a call to reach Redis.
func TestCallsOfOneGoroutineKeepTheirOrder(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client)
		for range 20 {
			served := &turns{t: t}
			for i := range 50 {
				served.add(i, m.Lock(ctx, "key", time.Minute))
			}
			served.requireInOrder()
		}
	})
}

func TestNobodyHangsAndNobodyOverlaps(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		const managers, callers, rounds, keys = 3, 12, 25, 4
		var inside [keys]atomic.Int32
		var last [keys]atomic.Int64
		var wg sync.WaitGroup
		for range managers {
			m := newManager(t, client)
			for c := range callers {
				wg.Go(func() {
					for i := range rounds {
						k := (c + i) % keys
						l := m.Lock(ctx, fmt.Sprint("key", k), time.Minute)
						r := l.Wait()
						if r.Err != nil {
							t.Error(r.Err)
							return
						}
						if inside[k].Add(1) != 1 {
							t.Error("two holders at once")
						}
						if last[k].Swap(r.Token) >= r.Token {
							t.Error("token does not rise")
						}
						inside[k].Add(-1)
						if err := l.Unlock(); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		finish(t, &wg)
		requireClean(t, client)
	})
}

func TestTryLockNeverWaits(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client)
		l, err := m.TryLock(ctx, "key", time.Minute)
		require.NoError(t, err)
		for range 3 { // by plain commands first, then by the script
			_, err = m.TryLock(ctx, "key", time.Minute)
			require.ErrorIs(t, err, redislock.ErrNotAcquired)
			var typed *redislock.Error
			require.ErrorAs(t, err, &typed)
			require.Equal(t, "trylock", typed.Op)
			require.Equal(t, "key", typed.Key)
		}
		require.NoError(t, l.Unlock())
		l, err = m.TryLock(ctx, "key", time.Minute)
		require.NoError(t, err)
		require.NoError(t, l.Unlock())
		requireClean(t, client)
	})
}

// A key that became free without a release goes to the first in line, not to
// one who tries.
func TestTryLockDoesNotJumpTheLine(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client, redislock.WithKeyspaceEvents(redislock.KeyspaceOff))
		require.NoError(t, client.Set(ctx, "key", "foreign", time.Minute).Err())
		l := m.Lock(ctx, "key", time.Minute)
		awaitWaiters(t, client, "key", 1)
		require.NoError(t, client.Del(ctx, "key").Err())
		_, err := m.TryLock(ctx, "key", time.Minute)
		require.ErrorIs(t, err, redislock.ErrNotAcquired)
		serve(t, l)
	})
}

func TestMaxQueueRefusesTheNewest(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client, redislock.WithMaxQueue(2))
		holder := acquire(t, m, "key", time.Minute)
		a := m.Lock(ctx, "key", time.Minute)
		b := m.Lock(ctx, "key", time.Minute)
		c := m.Lock(ctx, "key", time.Minute)
		require.ErrorIs(t, soon(t, c).Err, redislock.ErrQueueFull)
		other := acquire(t, m, "other", time.Minute) // the limit is by key
		require.NoError(t, other.Unlock())
		require.NoError(t, holder.Unlock())
		require.True(t, soon(t, a).OK())
		d := m.Lock(ctx, "key", time.Minute) // a place is free again
		require.NoError(t, a.Unlock())
		serve(t, b)
		serve(t, d)
		requireClean(t, client)
	})
}

func TestDoHoldsTheLockWhileTheFunctionRuns(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client)
		failure := errors.New("failure")
		require.Nil(t, redislock.FromContext(ctx))
		err := m.Do(ctx, "key", time.Minute, func(ctx context.Context) error {
			require.NoError(t, ctx.Err())
			require.Positive(t, redislock.FromContext(ctx).Token())
			require.EqualValues(t, 1, client.Exists(ctx, "key").Val())
			return failure
		})
		require.ErrorIs(t, err, failure)
		require.Zero(t, client.Exists(ctx, "key").Val())
		require.NoError(t, m.Do(ctx, "key", time.Minute, func(context.Context) error { return nil }))

		holder := acquire(t, m, "key", time.Minute)
		short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		err = m.Do(short, "key", time.Minute, func(context.Context) error {
			t.Error("ran without the lock")
			return nil
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, holder.Unlock())

		require.Panics(t, func() {
			_ = m.Do(ctx, "key", time.Minute, func(context.Context) error { panic("in the function") })
		})
		requireClean(t, client)
	})
}

func TestDoCancelsItsFunctionWhenTheLockIsLost(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client)
		err := m.Do(ctx, "key", 50*time.Millisecond, func(ctx context.Context) error {
			<-ctx.Done()
			require.ErrorIs(t, context.Cause(ctx), redislock.ErrLost)
			return nil
		})
		require.ErrorIs(t, err, redislock.ErrLost)
	})
}

func TestCloseFailsTheWaitersAndLeavesTheHolders(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m, other := newManager(t, client), newManager(t, client)
		holder := acquire(t, m, "key", time.Minute)
		var waiting []*redislock.Lock
		for range 10 {
			waiting = append(waiting, m.Lock(ctx, "key", time.Minute))
		}
		awaitWaiters(t, client, "key", 10)
		behind := other.Lock(ctx, "key", time.Minute)
		awaitWaiters(t, client, "key", 11)

		require.NoError(t, m.Close())
		for _, l := range waiting {
			require.ErrorIs(t, soon(t, l).Err, redislock.ErrClosed)
			require.ErrorIs(t, l.Unlock(), redislock.ErrNotHeld)
		}
		require.Equal(t, 1, waiters(t, client, "key"), "Close returned before its waiters had left")
		require.ErrorIs(t, m.Lock(ctx, "key", time.Minute).Wait().Err, redislock.ErrClosed)
		_, err := m.TryLock(ctx, "key", time.Minute)
		require.ErrorIs(t, err, redislock.ErrClosed)
		require.ErrorIs(t, m.Do(ctx, "key", time.Minute, func(context.Context) error { return nil }), redislock.ErrClosed)
		require.NoError(t, m.Close(), "closing twice is harmless")

		require.NoError(t, holder.Err(), "the holder still holds")
		require.ErrorIs(t, holder.Extend(ctx, time.Minute), redislock.ErrClosed)
		require.NoError(t, holder.Unlock())
		serve(t, behind)
		requireClean(t, client)
	})
}

func TestCloseAmidActivity(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		for range 20 {
			m := newManager(t, client)
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					for {
						l := m.Lock(ctx, fmt.Sprint("key", i%3), time.Minute, redislock.WithAutoRenew(time.Hour))
						r := l.Wait()
						_ = l.Unlock()
						if r.Err != nil {
							if !errors.Is(r.Err, redislock.ErrClosed) {
								t.Error(r.Err)
							}
							return
						}
					}
				})
			}
			time.Sleep(2 * time.Millisecond)
			require.NoError(t, m.Close())
			finish(t, &wg)
			requireNoGoroutines(t)
			requireClean(t, client)
		}
	})
}

func TestBadArgumentsAreNamedAndNothingIsSent(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}) // nobody listens
	defer client.Close()

	bad := func(err error, word string) {
		t.Helper()
		require.ErrorIs(t, err, redislock.ErrInvalidArgument)
		var typed *redislock.Error
		require.ErrorAs(t, err, &typed)
		require.Contains(t, err.Error(), word)
	}
	build := func(client redis.UniversalClient, opts ...redislock.Option) error {
		m, err := redislock.NewLockManager(client, opts...)
		require.Nil(t, m)
		return err
	}
	bad(build(nil), "client is nil")
	bad(build((*redis.Client)(nil)), "client is nil")
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": "127.0.0.1:1"}, HeartbeatFrequency: time.Hour})
	defer ring.Close()
	bad(build(ring), "Ring")
	bad(build(struct{ *redis.Ring }{ring}), "Ring")
	bad(build(struct{ redis.UniversalClient }{ring}), "Ring")
	bad(build(client, nil), "option is nil")
	bad(build(client, redislock.WithLogger(nil)), "logger is nil")
	bad(build(client, redislock.WithMaxQueue(-1)), "max queue is -1")
	bad(build(client, redislock.WithKeyspaceEvents(99)), "keyspace events mode is KeyspaceMode(99)")
	bad(build(client, redislock.WithPrefix("redislock:")), "redislock:")

	m := newManager(t, client)
	call := func(ctx context.Context, key string, ttl time.Duration, opts ...redislock.LockOption) error {
		t.Helper()
		l := m.Lock(ctx, key, ttl, opts...)
		err := l.Wait().Err
		require.Equal(t, err, l.Err())
		require.True(t, closed(l.Done()))
		require.ErrorIs(t, l.Unlock(), redislock.ErrNotHeld)
		require.ErrorIs(t, l.Extend(context.Background(), time.Second), redislock.ErrNotHeld)
		_, tried := m.TryLock(ctx, key, ttl, opts...)
		require.ErrorIs(t, tried, redislock.ErrInvalidArgument)
		done := m.Do(ctx, key, ttl, func(context.Context) error { panic("ran") }, opts...)
		require.ErrorIs(t, done, redislock.ErrInvalidArgument)
		return err
	}
	bad(call(nil, "key", time.Second), "context is nil")
	bad(call(ctx, "", time.Second), "key is empty")
	bad(call(ctx, "redislock:queue:{a}", time.Second), "redislock:")
	for _, ttl := range []time.Duration{0, -1, 1, time.Millisecond - 1, math.MinInt64} {
		bad(call(ctx, "key", ttl), "ttl is")
	}
	bad(call(ctx, "key", math.MaxInt64), "100 years")
	bad(call(ctx, "key", time.Second, nil), "option is nil")
	bad(call(ctx, "key", time.Second, redislock.WithValue("")), "owner value is empty")
	bad(call(ctx, "key", time.Second, redislock.WithAutoRenew(0)), "max hold is 0s")
	bad(call(ctx, "key", time.Second, redislock.WithAutoRenew(-time.Second)), "max hold is -1s")
	bad(call(ctx, "key", time.Minute, redislock.WithAutoRenew(time.Second)), "max hold 1s is below the ttl 1m0s")
	bad(m.Do(ctx, "key", time.Second, nil), "function is nil")
}

func TestKeyOfAnotherTypeIsAnErrorNotAWait(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client)
		require.NoError(t, client.RPush(ctx, "key", "a list").Err())
		r := soon(t, m.Lock(ctx, "key", time.Minute))
		require.Error(t, r.Err)
		require.Contains(t, r.Err.Error(), "WRONGTYPE")
		var answer redis.Error
		require.ErrorAs(t, r.Err, &answer)
		require.EqualValues(t, 1, client.LLen(ctx, "key").Val())
	})
}

func TestUnreachableRedisIsAnErrorOfItsOwn(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", DialTimeout: time.Second, DialerRetries: 1})
	defer client.Close()
	m := newManager(t, client)
	r := soon(t, m.Lock(ctx, "key", time.Minute))
	require.Error(t, r.Err)
	var dial interface{ Timeout() bool }
	require.ErrorAs(t, r.Err, &dial)
	for _, sentinel := range []error{redislock.ErrNotAcquired, redislock.ErrLost, redislock.ErrClosed, context.Canceled} {
		require.NotErrorIs(t, r.Err, sentinel)
	}
}

func TestBothProtocols(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		for _, protocol := range []int{2, 3} {
			options := *client.Options()
			options.Protocol = protocol
			c := redis.NewClient(&options)
			t.Cleanup(func() { c.Close() })
			m, m2 := newManager(t, c), newManager(t, c)
			var last int64
			for range 3 {
				first := acquire(t, m, "key", time.Minute)
				second := m2.Lock(ctx, "key", time.Minute)
				awaitWaiters(t, client, "key", 1)
				require.NoError(t, first.Extend(ctx, 2*time.Minute))
				require.NoError(t, first.Unlock())
				r := soon(t, second)
				require.NoError(t, r.Err)
				require.Greater(t, first.Token(), last)
				require.Greater(t, r.Token, first.Token())
				last = r.Token
				require.NoError(t, second.Unlock())
			}
		}
	})
}
