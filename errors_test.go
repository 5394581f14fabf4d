package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
)

// requireError checks what holds for every error: it is an *Error of this call and
// key, it can be compared with itself, which is a panic for some types, and it reads
// as one line.
func requireError(t *testing.T, err error, op, key, text string) {
	t.Helper()
	require.Error(t, err, op)
	require.Equal(t, text, strings.TrimPrefix(err.Error(), fmt.Sprintf("redislock: %s %q: ", op, key)))
	typed, ok := err.(*redislock.Error) //nolint:errorlint // nothing around it
	require.True(t, ok, "%T", err)
	require.Equal(t, op, typed.Op)
	require.Equal(t, key, typed.Key)
	for all := []error{err}; len(all) > 0; all = all[1:] {
		require.NotPanics(t, func() {
			same := all[0]
			require.True(t, all[0] == same) //nolint:errorlint // compared, as users do
		})
		switch wrapper := all[0].(type) {
		case interface{ Unwrap() error }:
			all = append(all, wrapper.Unwrap())
		case interface{ Unwrap() []error }:
			all = append(all, wrapper.Unwrap()...)
		}
	}
}

func TestEveryErrorNamesCallAndKey(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		m := b.manager
		l := acquire(t, m, "expired", time.Second)
		<-l.Done()
		requireError(t, l.Err(), "lock", "expired", "lock lost: the lease ran out")
		require.Same(t, l.Err(), l.Err())
		requireError(t, l.Extend(ctx, time.Minute), "extend", "expired", "lock not held: lock lost: the lease ran out")
		requireError(t, l.Unlock(), "unlock", "expired", "lock not held: lock lost: the lease ran out")
		requireError(t, l.Unlock(), "unlock", "expired", "lock not held")
		require.ErrorIs(t, l.Err(), redislock.ErrLost)

		l, err := m.TryLock(ctx, "taken", time.Minute)
		require.NoError(t, err)
		b.server.Del("taken")
		requireError(t, l.Extend(ctx, time.Hour), "extend", "taken",
			"lock not held: lock lost: the key is gone or has another owner")
		requireError(t, l.Err(), "trylock", "taken", "lock lost: the key is gone or has another owner")
		l = acquire(t, m, "taken", time.Minute)
		b.server.Del("taken")
		requireError(t, l.Unlock(), "unlock", "taken", "lock not held: lock lost: the key is gone or has another owner")
		requireError(t, l.Err(), "lock", "taken", "lock released")

		holder := acquire(t, m, "key", time.Minute)
		_, err = m.TryLock(ctx, "key", time.Minute)
		requireError(t, err, "trylock", "key", "lock not acquired")
		waiter := m.Lock(ctx, "key", time.Minute)
		require.NoError(t, waiter.Unlock())
		requireError(t, waiter.Wait().Err, "lock", "key", "lock released")
		require.Same(t, waiter.Wait().Err, waiter.Err())
		cancelled, cancel := context.WithCancelCause(ctx)
		waiter = m.Lock(cancelled, "key", time.Minute)
		synctest.Wait()
		cancel(errors.New("one\ntwo"))
		requireError(t, waiter.Wait().Err, "lock", "key", "context canceled: one; two")
		requireError(t, m.Lock(ctx, "key", 0).Err(), "lock", "key", "invalid argument: ttl is 0s: want 1ms or more")
		require.NoError(t, holder.Unlock())
	})
}

// Do says what befell the lock, and what the function returned: each once, and no
// word of an Unlock that the caller has not made.
func TestDoTellsALossOnce(t *testing.T) {
	for name, c := range map[string]struct {
		returns func(context.Context) error
		text    string
	}{
		"nothing": {func(context.Context) error { return nil }, "lock lost: the lease ran out"},
		"the cause": {
			func(ctx context.Context) error { return context.Cause(ctx) },
			"lock lost: the lease ran out",
		},
		"another error": {
			func(context.Context) error { return errors.Join(errors.New("one"), errors.New("two")) },
			"lock lost: the lease ran out; the function returned: one; two",
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				err := b.manager.Do(ctx, "key", time.Second, func(ctx context.Context) error {
					<-ctx.Done()
					lost := redislock.FromContext(ctx).Err()
					require.ErrorIs(t, lost, redislock.ErrLost)
					require.True(t, context.Cause(ctx) == lost) //nolint:errorlint // compared, as users do
					return c.returns(ctx)
				})
				requireError(t, err, "do", "key", c.text)
				require.ErrorIs(t, err, redislock.ErrLost)
			})
		})
	}
}

func TestDoReturnsWhatTheFunctionDid(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		failure := errors.New("failure")
		do := func(f func(*redislock.Lock) error) error {
			return b.manager.Do(ctx, "key", time.Minute, func(ctx context.Context) error {
				return f(redislock.FromContext(ctx))
			})
		}
		require.Same(t, failure, do(func(*redislock.Lock) error { return failure }))
		require.NoError(t, do(func(l *redislock.Lock) error { return l.Unlock() }), "it may release the lock itself")
		require.Same(t, failure, do(func(l *redislock.Lock) error {
			require.NoError(t, l.Unlock())
			return failure
		}))

		err := do(func(*redislock.Lock) error { b.server.Del("key"); return failure })
		requireError(t, err, "do", "key",
			"lock lost: the key is gone or has another owner; the function returned: failure")
		require.ErrorIs(t, err, redislock.ErrLost)
		require.ErrorIs(t, err, failure)

		b.server.SetError("ERR no such luck")
		err = do(func(*redislock.Lock) error { return nil })
		requireError(t, err, "do", "key", "ERR no such luck")
		b.server.SetError("")
		err = do(func(*redislock.Lock) error { b.server.SetError("ERR no such luck"); return failure })
		requireError(t, err, "do", "key", "release failed: ERR no such luck; the function returned: failure")
		b.server.SetError("")
	})
}

// A loss is logged when it happens, whether anybody looks or not.
func TestLossIsLoggedWithoutAnybodyLooking(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		var log logBuffer
		m, err := redislock.NewLockManager(b.client, redislock.WithLogger(log.logger()))
		require.NoError(t, err)
		l := m.Lock(ctx, "key", 10*time.Second)
		require.True(t, l.Wait().OK())
		released := m.Lock(ctx, "released", 5*time.Second)
		require.NoError(t, released.Unlock())
		time.Sleep(time.Until(l.ValidUntil()) - 10*time.Millisecond)
		require.Empty(t, log.String())
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		require.Contains(t, log.String(), "lock lost")
		require.Equal(t, 1, strings.Count(log.String(), "\n"))
		require.NoError(t, m.Close())
	})
}

// However many locks there are, with whatever leases, extended or released in
// between: each loss is told in time, and not before.
func TestLossesOfManyLocksAreToldInTime(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
		var kept []*redislock.Lock
		for i := range 1000 {
			ttl := time.Duration(1+random.IntN(100)) * time.Second
			l := acquire(t, b.manager, fmt.Sprint("key", i), ttl)
			switch random.IntN(4) {
			case 0:
				require.NoError(t, l.Unlock())
				continue
			case 1:
				require.NoError(t, l.Extend(ctx, 2*ttl))
			}
			kept = append(kept, l)
		}
		for range 250 {
			time.Sleep(time.Second)
			synctest.Wait()
			now := time.Now()
			for _, l := range kept {
				if lost := closed(l.Done()); lost != !now.Before(l.ValidUntil().Add(-5*time.Millisecond)) {
					t.Fatalf("lost: %v, %v before the end of the lease", lost, l.ValidUntil().Sub(now))
				}
			}
		}
	})
}
