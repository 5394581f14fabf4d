package redislock_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
)

// withShortLease runs a test that needs a lease which ends soon, and tries again
// with a longer one for as long as it returns false: it could not tell, since a
// busy machine had taken up the lease.
func withShortLease(t *testing.T, test func(ttl time.Duration) bool) {
	t.Helper()
	for ttl := 80 * time.Millisecond; ttl < 6*time.Second; ttl = (ttl * 3 / 2).Truncate(time.Millisecond) {
		if test(ttl) {
			return
		}
	}
	t.Fatal("not even with a lease of seconds")
}

// acquireShort acquires, unless that took longer than the lease, or than a quorum
// has for it.
func acquireShort(t *testing.T, m *redislock.LockManager, key string, ttl time.Duration, opts ...redislock.LockOption) (l *redislock.Lock, ok bool) {
	t.Helper()
	l = m.Lock(ctx, key, ttl, opts...)
	r := soon(t, l)
	if r.Err != nil {
		t.Log(r.Err) // which matters if it stays like that
	}
	return l, r.OK()
}

func awaitDone(t *testing.T, l *redislock.Lock) {
	t.Helper()
	receive(t, l.Done())
}

// requireLost checks what is said of a lock that was lost.
func requireLost(t *testing.T, l *redislock.Lock) {
	t.Helper()
	require.ErrorIs(t, l.Err(), redislock.ErrLost)
	require.True(t, closed(l.Done()))
	err := l.Extend(ctx, time.Minute)
	require.ErrorIs(t, err, redislock.ErrNotHeld)
	require.ErrorIs(t, err, redislock.ErrLost)
	err = l.Unlock()
	require.ErrorIs(t, err, redislock.ErrNotHeld)
	require.ErrorIs(t, err, redislock.ErrLost)
	err = l.Unlock()
	require.ErrorIs(t, err, redislock.ErrNotHeld)
}

func suiteExtend(t *testing.T, on *site) {
	key, m := on.key(t, "key"), on.manager(t)
	l := acquire(t, m, key, time.Minute)
	before := l.ValidUntil()
	require.NoError(t, l.Extend(ctx, time.Hour))
	require.Greater(t, on.left(t, key), 50*time.Minute)
	require.Greater(t, time.Until(l.ValidUntil()), 50*time.Minute)
	require.LessOrEqual(t, time.Until(l.ValidUntil()), time.Hour)
	require.Equal(t, before, l.Wait().ValidUntil, "the outcome stays as it was")
	require.NoError(t, l.Extend(ctx, time.Second))
	require.Greater(t, on.left(t, key), 50*time.Minute, "an extension has shortened the lease")
	require.Greater(t, time.Until(l.ValidUntil()), 50*time.Minute)
	require.Equal(t, l.Value(), on.owner(t, key))
	require.NoError(t, l.Unlock())
	require.ErrorIs(t, l.Extend(ctx, time.Minute), redislock.ErrNotHeld)
	require.Empty(t, on.owner(t, key))
}

// The holder learns that his key is gone when he next has to do with it.
func suiteKeyIsDeleted(t *testing.T, on *site) {
	key, m := on.key(t, "key"), on.manager(t)
	l := acquire(t, m, key, time.Minute)
	on.remove(t, key)
	err := l.Unlock()
	require.ErrorIs(t, err, redislock.ErrNotHeld)
	require.ErrorIs(t, err, redislock.ErrLost)

	l = acquire(t, m, key, time.Minute)
	done := l.Done()
	on.remove(t, key)
	err = l.Extend(ctx, time.Minute)
	require.ErrorIs(t, err, redislock.ErrNotHeld)
	require.ErrorIs(t, err, redislock.ErrLost)
	require.True(t, closed(done))
	require.Empty(t, on.owner(t, key), "an extension has brought the key back")
	requireLost(t, l)
}

// What another has put in place of the key is left alone.
func suiteKeyIsAnothers(t *testing.T, on *site) {
	m := on.manager(t)
	for _, call := range []string{"unlock", "extend"} {
		key := on.key(t, call)
		l := acquire(t, m, key, time.Minute)
		on.remove(t, key)
		on.occupy(t, key, time.Minute)
		if call == "extend" {
			require.ErrorIs(t, l.Extend(ctx, time.Hour), redislock.ErrLost)
			requireLost(t, l)
		} else {
			require.ErrorIs(t, l.Unlock(), redislock.ErrLost)
		}
		require.Equal(t, "foreign", on.owner(t, key))
		require.LessOrEqual(t, on.left(t, key), time.Minute)
		on.remove(t, key)
	}
}

// Done tells of the end of the lease before it is over.
func suiteLeaseRunsOut(t *testing.T, on *site) {
	m := on.manager(t)
	withShortLease(t, func(ttl time.Duration) bool {
		asked := time.Now()
		l, ok := acquireShort(t, m, on.key(t, ttl.String()), ttl)
		if !ok {
			return false
		}
		require.False(t, l.ValidUntil().After(time.Now().Add(ttl)))
		awaitDone(t, l)
		now := time.Now()
		requireLost(t, l)
		// A busy machine may be late with the timer, but not always.
		return !now.After(l.ValidUntil()) && now.Sub(asked) > ttl*9/10
	})
}

// The end of a lease is noticed whether or not there are events to tell of it.
func suiteLeaseIsTakenOver(t *testing.T, on *site) {
	deaf := redislock.WithKeyspaceEvents(redislock.KeyspaceOff)
	m := on.manager(t, deaf)
	for i, next := range []*redislock.LockManager{m, on.manager(t, deaf), on.manager(t)} {
		withShortLease(t, func(ttl time.Duration) bool {
			key := on.key(t, fmt.Sprint(i, ttl))
			first, ok := acquireShort(t, m, key, ttl)
			if !ok {
				return false
			}
			second := next.Lock(ctx, key, time.Minute)
			require.NoError(t, soon(t, second).Err)
			require.False(t, time.Now().Before(first.ValidUntil()), "two holders at once")
			requireLost(t, first)
			require.Equal(t, second.Value(), on.owner(t, key), "the first has released the second's lock")
			require.Greater(t, on.left(t, key), 30*time.Second)
			require.NoError(t, second.Unlock())
			return true
		})
	}
}

// A holder that is cut off from Redis knows that he has lost the lock before
// anybody else gets it.
func suiteHolderIsCutOff(t *testing.T, on *site) {
	m := on.manager(t)
	withShortLease(t, func(ttl time.Duration) bool {
		key := on.key(t, ttl.String())
		mortal, kill := on.mortal(t)
		l, ok := acquireShort(t, mortal, key, ttl, redislock.WithAutoRenew(time.Hour))
		if !ok {
			return false
		}
		next := m.Lock(ctx, key, time.Minute) // which may have the lock at once if this was slow
		kill()
		require.NoError(t, soon(t, next).Err)
		require.False(t, time.Now().Before(l.ValidUntil()), "two holders at once")
		requireLost(t, l)
		require.Equal(t, next.Value(), on.owner(t, key))
		require.NoError(t, next.Unlock())
		return true
	})
}

// Renewal keeps the lock for several TTLs, and no longer than it is to.
func suiteAutoRenew(t *testing.T, on *site) {
	m := on.manager(t)
	withShortLease(t, func(ttl time.Duration) bool {
		longest := ttl * 7 / 2
		key := on.key(t, ttl.String())
		asked := time.Now()
		l, ok := acquireShort(t, m, key, ttl, redislock.WithAutoRenew(longest))
		granted := time.Now()
		if !ok {
			return false
		}
		select {
		case <-l.Done():
			return false
		case <-time.After(ttl * 3):
		}
		if owner := on.owner(t, key); l.Err() != nil {
			return false
		} else {
			require.Equal(t, l.Value(), owner)
		}
		awaitDone(t, l)
		require.False(t, l.ValidUntil().After(granted.Add(longest)), "held for longer than allowed")
		requireLost(t, l)
		return l.ValidUntil().Sub(asked) > longest*9/10
	})
}

func suiteAutoRenewNoticesTheLoss(t *testing.T, on *site) {
	m := on.manager(t)
	withShortLease(t, func(ttl time.Duration) bool {
		key := on.key(t, ttl.String())
		l, ok := acquireShort(t, m, key, ttl, redislock.WithAutoRenew(time.Hour))
		if !ok {
			return false
		}
		done := l.Done()
		on.remove(t, key)
		awaitDone(t, l)
		noticed := time.Now()
		require.True(t, closed(done))
		requireLost(t, l)
		require.Empty(t, on.owner(t, key), "a renewal has brought the key back")
		return noticed.Before(l.ValidUntil()) // by the renewal, not by the clock
	})
}

// However a lock was come by, it does not count on more than Redis grants.
func suiteValidUntil(t *testing.T, on *site) {
	const ttl, least = 20 * time.Second, 10 * time.Second
	m, other := on.manager(t), on.manager(t)
	valid := func(key string, l *redislock.Lock) {
		t.Helper()
		until := l.ValidUntil()
		require.Equal(t, l.Value(), on.owner(t, key))
		left := on.left(t, key)
		require.False(t, until.After(time.Now().Add(left+2*time.Millisecond)), "Redis holds it for %v more, the lock for %v",
			left, time.Until(until))
		require.Greater(t, time.Until(until), least, "next to nothing is left of the lease")
	}

	key := on.key(t, "key")
	l := acquire(t, m, key, ttl)
	valid(key, l)
	for i := range 10 { // handed over within a manager, and to another
		next := []*redislock.LockManager{m, other}[i%4/2].Lock(ctx, key, ttl)
		on.awaitWaiting(t, key, 1)
		require.NoError(t, l.Unlock())
		require.NoError(t, soon(t, next).Err)
		valid(key, next)
		l = next
	}
	require.NoError(t, l.Extend(ctx, ttl+time.Second))
	valid(key, l)
	require.NoError(t, l.Unlock())

	tried, err := m.TryLock(ctx, key, ttl) // soon after it was taken
	require.NoError(t, err)
	valid(key, tried)
	require.NoError(t, tried.Unlock())

	expiring := on.key(t, "expiring")
	on.occupy(t, expiring, 100*time.Millisecond)
	l = acquire(t, m, expiring, ttl)
	valid(expiring, l)
	require.NoError(t, l.Unlock())

	withShortLease(t, func(ttl time.Duration) bool {
		key := on.key(t, ttl.String())
		l, ok := acquireShort(t, m, key, ttl, redislock.WithAutoRenew(time.Hour))
		if !ok {
			return false
		}
		for first := l.ValidUntil(); l.ValidUntil().Equal(first) && l.Err() == nil; {
			time.Sleep(time.Millisecond)
		}
		until, left := l.ValidUntil(), on.left(t, key)
		if l.Err() != nil {
			return false
		}
		require.False(t, until.After(time.Now().Add(left+2*time.Millisecond)))
		require.NoError(t, l.Unlock())
		return true
	})
}

// Tokens rise, whoever acquires, and however the lock before came to its end.
func suiteTokens(t *testing.T, on *site) {
	key, managers := on.key(t, "key"), on.managers(t, 3)
	var last int64
	rises := func(l *redislock.Lock) *redislock.Lock {
		t.Helper()
		if on.tokens {
			require.Greater(t, l.Token(), last)
			last = l.Token()
		} else {
			require.Zero(t, l.Token())
		}
		return l
	}
	for i := range 30 {
		m, next := managers[i%3], managers[(i+i/3)%3]
		l := rises(acquire(t, m, key, time.Minute))
		switch i % 3 {
		case 0:
			require.NoError(t, l.Unlock())
		case 1: // handed over
			waiter := next.Lock(ctx, key, time.Minute)
			on.awaitWaiting(t, key, 1)
			require.NoError(t, l.Unlock())
			require.NoError(t, soon(t, waiter).Err)
			require.NoError(t, rises(waiter).Unlock())
		case 2: // deleted
			on.remove(t, key)
			require.NoError(t, rises(acquire(t, next, key, time.Minute)).Unlock())
			require.ErrorIs(t, l.Unlock(), redislock.ErrLost)
		}
	}
	withShortLease(t, func(ttl time.Duration) bool { // expired
		l, ok := acquireShort(t, managers[0], key, ttl)
		if !ok {
			return false
		}
		rises(l)
		require.NoError(t, rises(acquire(t, managers[1], key, time.Minute)).Unlock())
		return true
	})
}
