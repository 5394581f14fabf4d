package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
)

// newTurns is to be called before the managers are made: if the test fails, the
// goroutines that wait end after these are closed, and before the test does.
func newTurns(t *testing.T) *turns {
	served := &turns{t: t}
	t.Cleanup(served.wg.Wait)
	return served
}

func suiteOneManagersOrder(t *testing.T, on *site) {
	served := newTurns(t)
	key, m := on.key(t, "key"), on.manager(t)
	holder := acquire(t, m, key, time.Minute)
	for i := range 50 {
		served.add(i, m.Lock(ctx, key, time.Minute))
	}
	require.NoError(t, holder.Unlock())
	served.requireInOrder()
	require.Len(t, served.served, 50)
}

func suiteManagersOrder(t *testing.T, on *site) {
	const n = 30
	served := newTurns(t)
	key, managers := on.key(t, "key"), on.managers(t, 3)
	holder := acquire(t, managers[0], key, time.Minute)
	var inside atomic.Int32
	var last atomic.Int64
	last.Store(holder.Token())
	for i := range n {
		l := managers[i%3].Lock(ctx, key, time.Minute)
		on.awaitWaiting(t, key, i+1)
		served.wg.Go(func() {
			r := l.Wait()
			if r.Err != nil {
				t.Error(r.Err)
				return
			}
			if inside.Add(1) != 1 {
				t.Error("two holders at once")
			}
			served.mu.Lock()
			served.served = append(served.served, i)
			served.mu.Unlock()
			if before := last.Swap(r.Token); on.tokens && before >= r.Token {
				t.Errorf("token %d after %d", r.Token, before)
			}
			inside.Add(-1)
			if err := l.Unlock(); err != nil {
				t.Error(err)
			}
		})
	}
	require.NoError(t, holder.Unlock())
	finish(t, &served.wg)
	require.Len(t, served.served, n)
	if on.globalOrder {
		require.IsIncreasing(t, served.served)
		return
	}
	for m := range managers { // each manager's callers by themselves
		var own []int
		for _, i := range served.served {
			if i%3 == m {
				own = append(own, i)
			}
		}
		require.IsIncreasing(t, own)
	}
}

func suiteContextEndsTheWait(t *testing.T, on *site) {
	key, m, other := on.key(t, "key"), on.manager(t), on.manager(t)
	holder := acquire(t, m, key, time.Minute)

	reason := errors.New("the reason")
	for _, m := range []*redislock.LockManager{m, other} {
		cancelled, cancel := context.WithCancelCause(ctx)
		l := m.Lock(cancelled, key, time.Minute)
		on.awaitWaiting(t, key, 1)
		cancel(reason)
		r := soon(t, l)
		require.ErrorIs(t, r.Err, context.Canceled)
		require.ErrorIs(t, r.Err, reason)
		require.Zero(t, r.Token)
		require.ErrorIs(t, l.Err(), context.Canceled)
		require.True(t, closed(l.Done()))
		require.ErrorIs(t, l.Unlock(), redislock.ErrNotHeld)

		short, cancelShort := context.WithTimeoutCause(ctx, 20*time.Millisecond, reason)
		defer cancelShort()
		r = soon(t, m.Lock(short, key, time.Minute))
		require.ErrorIs(t, r.Err, context.DeadlineExceeded)
		require.ErrorIs(t, r.Err, reason)
		require.NotErrorIs(t, r.Err, context.Canceled)
		// One who had not joined yet when he left may do so, and leave once more.
		eventually(t, "he has left for good", func() bool { return m.Requests() == 0 })
		on.awaitWaiting(t, key, 0)
	}

	require.Equal(t, holder.Value(), on.owner(t, key))
	require.NoError(t, holder.Unlock())
	require.Empty(t, on.owner(t, key), "handed to one who has left")
}

// Whenever a call is cancelled, before it is sent, while it is under way or when
// it has just been granted, the key is soon free again.
func suiteCancelledCallLeavesNothing(t *testing.T, on *site) {
	m := on.manager(t)
	for i := range 100 {
		key := on.key(t, fmt.Sprint("key", i))
		cancelled, cancel := context.WithCancel(ctx)
		if i == 0 {
			cancel()
		}
		l := m.Lock(cancelled, key, time.Minute)
		for range i * i { // later and later
			_ = l.Key()
		}
		cancel()
		if r := soon(t, l); r.OK() {
			require.NoError(t, l.Err(), "once it is held, the context does not matter")
			require.Equal(t, l.Value(), on.owner(t, key))
			require.NoError(t, l.Unlock())
		} else {
			require.ErrorIs(t, r.Err, context.Canceled)
		}
	}
	on.requireNothingLeft(t)
}

func suiteUnlockWhileWaiting(t *testing.T, on *site) {
	key, m := on.key(t, "key"), on.manager(t)
	holder := acquire(t, m, key, time.Minute)
	l, behind := m.Lock(ctx, key, time.Minute), m.Lock(ctx, key, time.Minute)
	on.awaitWaiting(t, key, 2)
	require.NoError(t, l.Unlock())
	require.ErrorIs(t, soon(t, l).Err, redislock.ErrReleased)
	require.ErrorIs(t, l.Err(), redislock.ErrReleased)
	require.True(t, closed(l.Done()))
	require.ErrorIs(t, l.Unlock(), redislock.ErrNotHeld)
	require.Equal(t, holder.Value(), on.owner(t, key))
	require.NoError(t, holder.Unlock())
	serve(t, behind)
}

// A manager that is closed takes its waiters out of the line; the others move up.
func suiteClosedWaiters(t *testing.T, on *site) {
	key, m, closing := on.key(t, "key"), on.manager(t), on.manager(t)
	holder := acquire(t, m, key, time.Minute)
	var leaving []*redislock.Lock
	for range 5 {
		leaving = append(leaving, closing.Lock(ctx, key, time.Minute))
	}
	on.awaitWaiting(t, key, 5)
	behind := m.Lock(ctx, key, time.Minute)
	on.awaitWaiting(t, key, 6)
	require.NoError(t, closing.Close())
	for _, l := range leaving {
		require.ErrorIs(t, soon(t, l).Err, redislock.ErrClosed)
	}
	on.awaitWaiting(t, key, 1)
	require.NoError(t, holder.Unlock())
	serve(t, behind)
}

// A process that is gone while it waits costs the others nothing, least of all a
// TTL of its own.
func suiteDeadWaiters(t *testing.T, on *site) {
	key, m := on.key(t, "key"), on.manager(t)
	mortal, kill := on.mortal(t)
	holder := acquire(t, m, key, time.Minute)
	for range 3 {
		mortal.Lock(ctx, key, 10*time.Minute)
	}
	on.awaitWaiting(t, key, 3)
	behind := m.Lock(ctx, key, time.Minute)
	on.awaitWaiting(t, key, 4)
	kill()
	require.NoError(t, holder.Unlock())
	serve(t, behind)
}

// Who waits keeps nothing of the key from others meanwhile, on no node.
func suiteWaiterHoldsNothing(t *testing.T, on *site) {
	key, m := on.key(t, "key"), on.manager(t)
	on.occupy(t, key, time.Hour)
	l := m.Lock(ctx, key, time.Minute)
	on.awaitWaiting(t, key, 1)
	_, err := m.TryLock(ctx, key, time.Minute) // when this is answered, so was the other
	require.ErrorIs(t, err, redislock.ErrNotAcquired)
	eventually(t, "no node has the waiter's value", func() bool { return !on.anyHas(t, key, l.Value()) })
	on.remove(t, key)
	serve(t, l)
}

func suiteDeadHolder(t *testing.T, on *site) {
	const ttl = 100 * time.Millisecond
	key, m := on.key(t, "key"), on.manager(t, redislock.WithKeyspaceEvents(redislock.KeyspaceOff))
	start := time.Now()
	on.occupy(t, key, ttl)
	l := m.Lock(ctx, key, time.Minute)
	require.NoError(t, soon(t, l).Err)
	require.GreaterOrEqual(t, time.Since(start), ttl-5*time.Millisecond, "before the lease was over")
	require.NoError(t, l.Unlock())
}

// That the key is deleted is noticed long before its TTL is over, early in the
// wait and late, whoever held it: a dead process of another program, or a caller
// of the very manager that waits.
func suiteHeldKeyIsDeleted(t *testing.T, on *site) {
	m, other := on.manager(t), on.manager(t)
	for _, wait := range []time.Duration{0, 50 * time.Millisecond} {
		for _, holder := range []string{"foreign", "own"} {
			key := on.key(t, fmt.Sprint(holder, wait))
			var first *redislock.Lock
			if holder == "foreign" {
				on.occupy(t, key, time.Hour)
			} else {
				first = acquire(t, m, key, time.Hour)
			}
			a, b := m.Lock(ctx, key, time.Minute), other.Lock(ctx, key, time.Minute)
			on.awaitWaiting(t, key, 2)
			time.Sleep(wait)
			on.remove(t, key)
			next, last := a, b
			select {
			case <-known(a):
			case <-known(b):
				next, last = b, a
			case <-time.After(patience):
				hangs(t, "not noticed")
			}
			require.NoError(t, soon(t, next).Err)
			require.Equal(t, next.Value(), on.owner(t, key))
			if first != nil {
				require.ErrorIs(t, first.Unlock(), redislock.ErrLost)
				require.Equal(t, next.Value(), on.owner(t, key))
			}
			require.NoError(t, next.Unlock())
			serve(t, last)
		}
	}
}

// known returns a channel that is closed when the lock's outcome is known.
func known(l *redislock.Lock) <-chan struct{} {
	known := make(chan struct{})
	go func() {
		defer close(known)
		l.Wait()
	}()
	return known
}
