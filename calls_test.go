package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
)

// A nil *Lock is what TryLock returns with an error: to defer its Unlock before the
// error is looked at is no harm (bsm/redislock #67), nor is anything else.
func TestNilLockWasNeverAcquired(t *testing.T) {
	for name, l := range map[string]*redislock.Lock{"nil": nil, "zero": new(redislock.Lock)} {
		t.Run(name, func(t *testing.T) {
			for op, err := range map[string]error{
				"unlock": l.Unlock(), "release": l.Release(ctx), "extend": l.Extend(ctx, time.Second),
			} {
				requireError(t, err, op, "", fmt.Sprintf("redislock: %s: lock not held", op))
				require.ErrorIs(t, err, redislock.ErrNotHeld)
			}
			require.ErrorIs(t, l.Err(), redislock.ErrNotAcquired)
			require.Equal(t, l.Err(), l.Wait().Err)
			require.True(t, closed(l.Done()))
			require.True(t, closed(l.Settled()))
			require.Zero(t, l.Token())
			require.Zero(t, l.ValidUntil())
			require.Zero(t, l.Key()+l.Value())
			ended, cancel := l.Context(ctx)
			require.ErrorIs(t, context.Cause(ended), redislock.ErrNotAcquired)
			require.Same(t, l, redislock.FromContext(ended))
			cancel()
		})
	}
}

func TestAcquireIsLockAndWait(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		m := b.manager
		l, err := m.Acquire(ctx, "key", time.Minute)
		require.NoError(t, err)
		require.NotZero(t, l.Token())
		go func() {
			time.Sleep(10 * time.Second)
			_ = l.Unlock()
		}()
		next, err := m.Acquire(ctx, "key", time.Minute)
		require.NoError(t, err, "it waits for its turn")
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		none, err := m.Acquire(short, "key", time.Minute)
		require.Nil(t, none)
		requireError(t, err, "acquire", "key", "context deadline exceeded")
		require.NoError(t, next.Unlock())
	})
}

func TestTryDoRunsNowOrNotAtAll(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		m, failure := b.manager, errors.New("failure")
		ran, err := m.TryDo(ctx, "key", time.Minute, func(ctx context.Context) error {
			require.NotZero(t, redislock.FromContext(ctx).Token())
			return failure
		})
		require.True(t, ran)
		require.Same(t, failure, err)

		holder := acquire(t, m, "key", time.Minute)
		never := func(context.Context) error { t.Error("ran without the lock"); return nil }
		ran, err = m.TryDo(ctx, "key", time.Minute, never)
		require.False(t, ran)
		require.NoError(t, err)
		require.NoError(t, holder.Unlock())

		ran, err = m.TryDo(ctx, "key", 0, never)
		require.False(t, ran)
		require.ErrorIs(t, err, redislock.ErrInvalidArgument)
		_, err = m.TryDo(ctx, "key", time.Minute, nil)
		requireError(t, err, "trydo", "key", "invalid argument: function is nil")
		ran, err = m.TryDo(ctx, "key", time.Second, func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		})
		require.True(t, ran)
		requireError(t, err, "trydo", "key", "lock lost: the lease ran out")
	})
}

// Who calls with the context of a lock that holds the key would wait for himself.
func TestOwnContextIsRefusedWhileItsLockIsHeld(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		m, other := b.manager, b.another(t).manager
		const text = "the context's own lock holds the key: to wait for it, use a context that is not of that lock"
		refused := func(t *testing.T, own context.Context) {
			t.Helper()
			began := time.Now()
			never := func(context.Context) error { t.Error("ran without the lock"); return nil }
			requireError(t, m.Do(own, "key", time.Minute, never), "do", "key", text)
			requireError(t, m.Lock(own, "key", time.Minute).Wait().Err, "lock", "key", text)
			_, err := m.Acquire(own, "key", time.Minute)
			require.ErrorIs(t, err, redislock.ErrReentrant)
			_, err = m.TryLock(own, "key", time.Minute)
			requireError(t, err, "trylock", "key", "lock not acquired: "+text)
			require.ErrorIs(t, err, redislock.ErrReentrant)
			require.ErrorIs(t, err, redislock.ErrNotAcquired)
			ran, err := m.TryDo(own, "key", time.Minute, never)
			require.False(t, ran)
			require.ErrorIs(t, err, redislock.ErrReentrant, "no word of it would hide a mistake")
			require.Equal(t, began, time.Now())
		}
		waits := func(t *testing.T, m *redislock.LockManager, ctx context.Context) {
			t.Helper()
			_, err := m.Acquire(ctx, "key", time.Minute, redislock.WithWaitTimeout(time.Second))
			require.ErrorIs(t, err, redislock.ErrNotAcquired)
			require.NotErrorIs(t, err, redislock.ErrReentrant)
		}
		acquires := func(t *testing.T, ctx context.Context, key string) {
			t.Helper()
			l, err := m.Acquire(ctx, key, time.Minute)
			require.NoError(t, err)
			require.NoError(t, l.Unlock())
		}
		require.NoError(t, m.Do(ctx, "key", time.Minute, func(own context.Context) error {
			refused(t, own)
			refused(t, context.WithoutCancel(own))
			waits(t, m, ctx)
			waits(t, other, own)
			acquires(t, own, "another key")
			require.NoError(t, m.Do(own, "another key", time.Minute, func(inner context.Context) error {
				refused(t, inner)
				return nil
			}))
			require.NoError(t, redislock.FromContext(own).Unlock())
			acquires(t, context.WithoutCancel(own), "key")
			return nil
		}))
		lost := acquire(t, m, "key", time.Second)
		own, cancel := lost.Context(ctx)
		defer cancel()
		refused(t, own)
		<-lost.Done()
		acquires(t, context.WithoutCancel(own), "key")
	})
}

// The end of the wait is no end of the context: it is told as ErrNotAcquired, and
// what Do runs knows nothing of it.
func TestWaitTimeoutBoundsTheWaitAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		m := b.manager
		holder := acquire(t, m, "key", time.Minute)
		began := time.Now()
		l := m.Lock(ctx, "key", time.Minute, redislock.WithWaitTimeout(5*time.Second))
		synctest.Wait()
		require.Equal(t, 1, waiters(t, b.client, "key"))
		err := l.Wait().Err
		require.Equal(t, 5*time.Second, time.Since(began))
		requireError(t, err, "lock", "key", "lock not acquired: its turn did not come within 5s")
		require.ErrorIs(t, err, redislock.ErrNotAcquired)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		require.Zero(t, waiters(t, b.client, "key"), "it stays in the line")

		cancellable, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Second, cancel)
		err = m.Lock(cancellable, "key", time.Minute, redislock.WithWaitTimeout(5*time.Second)).Wait().Err
		require.ErrorIs(t, err, context.Canceled)

		go func() {
			time.Sleep(time.Second)
			_ = holder.Unlock()
		}()
		require.NoError(t, m.Do(ctx, "key", time.Minute, func(ctx context.Context) error {
			time.Sleep(10 * time.Second)
			_, has := ctx.Deadline()
			require.False(t, has)
			return ctx.Err()
		}, redislock.WithWaitTimeout(5*time.Second)))

		_, err = m.TryLock(ctx, "key", time.Minute, redislock.WithWaitTimeout(time.Second))
		requireError(t, err, "trylock", "key", "invalid argument: WithWaitTimeout: trylock does not wait")
		_, err = m.TryDo(ctx, "key", time.Minute, func(context.Context) error { return nil }, redislock.WithWaitTimeout(time.Second))
		requireError(t, err, "trydo", "key", "invalid argument: WithWaitTimeout: trydo does not wait")
		_, err = m.Acquire(ctx, "key", time.Minute, redislock.WithWaitTimeout(0))
		requireError(t, err, "acquire", "key", "invalid argument: wait timeout is 0s: want more than 0")
	})
}

func TestAutoRenewUntilUnlock(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		l := acquire(t, b.manager, "key", time.Hour, redislock.WithAutoRenew(redislock.UntilUnlock))
		time.Sleep(30 * 24 * time.Hour)
		require.NoError(t, l.Err())
		require.Greater(t, b.server.TTL("key"), 30*time.Minute)
		require.Greater(t, time.Until(l.ValidUntil()), 30*time.Minute)
		b.frozen.Store(true)
		<-l.Done()
		require.ErrorContains(t, l.Err(), "the lease ran out")
		require.NotContains(t, l.Err().Error(), "longest hold")
	})
}

// A lock's context ends with the lock, whatever ends that, and says why.
func TestContextOfALockEndsWithTheLock(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		m := b.manager
		type key struct{}
		parent := context.WithValue(ctx, key{}, "value")
		for name, end := range map[string]func(*redislock.Lock){
			"released":   func(l *redislock.Lock) { require.NoError(t, l.Unlock()) },
			"lost":       func(l *redislock.Lock) { <-l.Done() },
			"taken away": func(l *redislock.Lock) { b.server.Del("key"); require.Error(t, l.Extend(ctx, time.Hour)) },
		} {
			l := m.Lock(ctx, "key", time.Minute)
			early, cancelEarly := l.Context(parent)
			require.NoError(t, l.Wait().Err)
			own, cancel := l.Context(parent)
			unheeded, cancelUnheeded := l.Context(ctx)
			cancelUnheeded()
			require.ErrorIs(t, context.Cause(unheeded), context.Canceled)
			require.Same(t, l, redislock.FromContext(own))
			require.Equal(t, "value", own.Value(key{}))
			require.NoError(t, own.Err())
			end(l)
			for _, c := range []context.Context{early, own} {
				require.ErrorIs(t, c.Err(), context.Canceled, name)
				require.Same(t, l.Err(), context.Cause(c), name)
			}
			later, cancelLater := l.Context(parent)
			require.Same(t, l.Err(), context.Cause(later), name)
			for _, cancel := range []func(){cancelEarly, cancel, cancelUnheeded, cancelLater} {
				cancel() // however late, and however often
				cancel()
			}
			_ = l.Unlock()
		}

		holder := acquire(t, m, "key", time.Minute)
		cancellable, cancel := context.WithCancel(parent)
		waiting := m.Lock(cancellable, "key", time.Minute)
		own, cancelOwn := waiting.Context(ctx)
		defer cancelOwn()
		ofParent, cancelOfParent := holder.Context(cancellable)
		defer cancelOfParent()
		cancel()
		require.ErrorIs(t, waiting.Wait().Err, context.Canceled)
		require.Same(t, waiting.Err(), context.Cause(own))
		require.Equal(t, context.Canceled, context.Cause(ofParent))
		require.NoError(t, holder.Err())
		require.NoError(t, holder.Unlock())
	})
}

func TestSettledTellsWhenWaitWouldNotBlock(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		holder := b.manager.Lock(ctx, "key", time.Minute)
		<-holder.Settled()
		require.True(t, holder.Wait().OK())
		next, leaves := b.manager.Lock(ctx, "key", time.Minute), b.manager.Lock(ctx, "key", time.Minute)
		synctest.Wait()
		require.False(t, closed(next.Settled()))
		require.False(t, closed(leaves.Settled()))
		require.NoError(t, leaves.Unlock())
		require.True(t, closed(leaves.Settled()))
		require.NoError(t, holder.Unlock())
		<-next.Settled()
		require.NoError(t, next.Unlock())
		require.True(t, closed(next.Settled()))
		require.True(t, closed(b.manager.Lock(ctx, "key", 0).Settled()))
	})
}

// Release does not wait longer than its context lasts; the release goes on all the
// same. gocron calls with a context that has ended already.
func TestReleaseWaitsNoLongerThanItsContext(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		m := b.manager
		l := acquire(t, m, "key", time.Minute)
		require.NoError(t, l.Release(ctx))
		require.False(t, b.server.Exists("key"))
		requireError(t, l.Release(ctx), "release", "key", "lock not held")

		reason := errors.New("the reason")
		ended, cancel := context.WithCancelCause(ctx)
		cancel(reason)
		l = acquire(t, m, "key", time.Minute)
		began := time.Now()
		if err := l.Release(ended); err != nil { // it may be confirmed as soon
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, reason)
		}
		require.Equal(t, began, time.Now())
		synctest.Wait()
		require.False(t, b.server.Exists("key"), "not released, as the context had ended")

		l = acquire(t, m, "key", time.Minute)
		short, cancelShort := context.WithTimeout(ctx, time.Second)
		defer cancelShort()
		b.server.SetError("BUSY Redis is busy running a script.")
		began = time.Now()
		requireError(t, l.Release(short), "release", "key",
			"context deadline exceeded: not confirmed yet: the manager goes on until the lease ends")
		require.Equal(t, time.Second, time.Since(began))
		require.ErrorIs(t, l.Err(), redislock.ErrReleased)
		b.server.SetError("")
		time.Sleep(time.Second)
		require.False(t, b.server.Exists("key"), "given up with the context")

		l = acquire(t, m, "key", time.Minute)
		var none context.Context
		require.ErrorIs(t, l.Release(none), redislock.ErrInvalidArgument)
		require.NoError(t, l.Unlock())
	})
}

// Shutdown fails who waits, at once, and takes nothing away from who holds.
func TestShutdownWaitsForTheHolders(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		m := b.manager
		renewed := acquire(t, m, "key", 3*time.Second, redislock.WithAutoRenew(time.Hour))
		expires := acquire(t, m, "expires", 20*time.Second)
		waiter := m.Lock(ctx, "key", time.Minute)
		synctest.Wait()
		var took time.Duration
		began, done := time.Now(), make(chan struct{})
		go func() {
			defer close(done)
			assert.NoError(t, m.Shutdown(ctx))
			took = time.Since(began)
		}()
		synctest.Wait()
		require.True(t, closed(waiter.Done()))
		require.ErrorIs(t, waiter.Wait().Err, redislock.ErrClosed)
		require.Zero(t, waiters(t, b.client, "key"))
		_, err := m.TryLock(ctx, "free", time.Minute)
		requireError(t, err, "trylock", "free", "lock manager closed")
		require.ErrorIs(t, m.Lock(ctx, "free", time.Minute).Wait().Err, redislock.ErrClosed)
		require.NoError(t, expires.Extend(ctx, 25*time.Second), "a holder may extend his lease")

		time.Sleep(30 * time.Second)
		require.ErrorIs(t, expires.Err(), redislock.ErrLost)
		require.False(t, closed(done))
		require.NoError(t, renewed.Err(), "not renewed any more")
		require.NoError(t, renewed.Unlock())
		<-done
		require.Equal(t, 30*time.Second, took)
		require.False(t, b.server.Exists("key"))
		require.NoError(t, m.Shutdown(ctx), "nothing is left to do")
		require.NoError(t, m.Close())
	})
}

func TestShutdownEndsWithItsContext(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		m := b.manager
		l := acquire(t, m, "key", 3*time.Second, redislock.WithAutoRenew(time.Hour))
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		began := time.Now()
		go func() {
			<-short.Done()
			assert.NoError(t, l.Err(), "the lock is taken away with the context")
		}()
		err := m.Shutdown(short)
		requireError(t, err, "shutdown", "", "redislock: shutdown: context deadline exceeded: locks that are still held: 1")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 10*time.Second, time.Since(began))
		<-l.Done()
		require.ErrorIs(t, l.Err(), redislock.ErrLost)
		require.Less(t, time.Since(began), 13*time.Second, "renewed beyond the end of the manager")
		var none context.Context
		require.ErrorIs(t, m.Shutdown(none), redislock.ErrInvalidArgument)
	})
}

// A call that Redis is about to answer when the manager ends gets no lock that nobody
// would renew, and leaves nothing.
func TestShutdownAmidATryLock(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := newWire(b)
		require.NoError(t, acquire(t, b.manager, "warm", time.Minute).Unlock())
		w.next.Store(&fate{after: 200 * time.Millisecond})
		tried := make(chan error)
		go func() {
			_, err := b.manager.TryLock(ctx, "key", time.Minute)
			tried <- err
		}()
		synctest.Wait()
		go func() { _ = b.manager.Shutdown(ctx) }()
		require.ErrorIs(t, <-tried, redislock.ErrClosed)
		time.Sleep(time.Second)
		require.False(t, b.server.Exists("key"))
		require.True(t, b.manager.Idle())
	})
}
