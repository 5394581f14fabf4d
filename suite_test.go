package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
)

// suite is what the library does wherever it runs: the same tests for every
// topology, through the public surface.
var suite = []struct {
	name string
	test func(t *testing.T, on *site)
}{
	// suite_test.go
	{"AcquireUnlockAgain", suiteAcquireUnlockAgain},
	{"UnlockLetsTheNextIn", suiteUnlockLetsTheNextIn},
	{"TryLock", suiteTryLock},
	{"UnlockTwice", suiteUnlockTwice},
	{"Value", suiteValue},
	{"MaxQueue", suiteMaxQueue},
	{"Do", suiteDo},
	{"DoTellsOfALoss", suiteDoTellsOfALoss},
	{"Close", suiteClose},
	{"OddKeys", suiteOddKeys},

	// suite_line_test.go
	{"OneManagersOrder", suiteOneManagersOrder},
	{"ManagersOrder", suiteManagersOrder},
	{"ContextEndsTheWait", suiteContextEndsTheWait},
	{"CancelledCallLeavesNothing", suiteCancelledCallLeavesNothing},
	{"UnlockWhileWaiting", suiteUnlockWhileWaiting},
	{"ClosedWaiters", suiteClosedWaiters},
	{"DeadWaiters", suiteDeadWaiters},
	{"WaiterHoldsNothing", suiteWaiterHoldsNothing},
	{"DeadHolder", suiteDeadHolder},
	{"HeldKeyIsDeleted", suiteHeldKeyIsDeleted},

	// suite_lease_test.go
	{"Extend", suiteExtend},
	{"KeyIsDeleted", suiteKeyIsDeleted},
	{"KeyIsAnothers", suiteKeyIsAnothers},
	{"LeaseRunsOut", suiteLeaseRunsOut},
	{"LeaseIsTakenOver", suiteLeaseIsTakenOver},
	{"HolderIsCutOff", suiteHolderIsCutOff},
	{"AutoRenew", suiteAutoRenew},
	{"AutoRenewNoticesTheLoss", suiteAutoRenewNoticesTheLoss},
	{"ValidUntil", suiteValidUntil},
	{"Tokens", suiteTokens},

	// suite_crowd_test.go
	{"ForeignLockers", suiteForeignLockers},
	{"AllAtOnce", suiteAllAtOnce},
	{"Stress", suiteStress},
	{"ThousandLocks", suiteThousandLocks},
}

func TestSuite(t *testing.T) {
	for _, on := range topologies() {
		t.Run(on.name, func(t *testing.T) {
			on.start(t, on)
			on.run(t)
		})
	}
}

// run runs the suite.
func (on *topology) run(t *testing.T) {
	for _, s := range suite {
		t.Run(s.name, func(t *testing.T) {
			here := &site{topology: on}
			t.Cleanup(func() { here.leave(t) })
			s.test(t, here)
			here.requireNothingLeft(t)
		})
	}
	if !t.Failed() {
		(&site{topology: on}).requireAllPasses(t)
	}
}

func suiteAcquireUnlockAgain(t *testing.T, on *site) {
	key, m := on.key(t, "key"), on.manager(t)
	for range 3 {
		l := acquire(t, m, key, time.Minute)
		require.Equal(t, on.prefix+key, l.Key())
		require.Equal(t, l.Value(), on.owner(t, key))
		require.Greater(t, on.left(t, key), 30*time.Second)
		require.Greater(t, time.Until(l.ValidUntil()), 30*time.Second)
		require.Equal(t, l.ValidUntil(), l.Wait().ValidUntil)
		require.Equal(t, l.Token(), l.Wait().Token)
		require.NoError(t, l.Err())
		require.False(t, closed(l.Done()))

		require.NoError(t, l.Unlock())
		require.Empty(t, on.owner(t, key))
		require.ErrorIs(t, l.Err(), redislock.ErrReleased)
		require.True(t, closed(l.Done()))
	}
}

func suiteUnlockLetsTheNextIn(t *testing.T, on *site) {
	m, other := on.manager(t), on.manager(t)
	for i, next := range []*redislock.LockManager{m, other} {
		key := on.key(t, fmt.Sprint("key", i))
		first := acquire(t, m, key, time.Minute)
		second := next.Lock(ctx, key, time.Minute)
		on.awaitWaiting(t, key, 1)
		require.Equal(t, first.Value(), on.owner(t, key))
		require.Zero(t, second.ValidUntil(), "two holders at once")
		require.NoError(t, first.Unlock())
		require.NoError(t, soon(t, second).Err)
		require.Equal(t, second.Value(), on.owner(t, key))
		require.Greater(t, time.Until(second.ValidUntil()), 30*time.Second)
		require.ErrorIs(t, first.Unlock(), redislock.ErrNotHeld)
		require.Equal(t, second.Value(), on.owner(t, key), "released by one who does not hold")
		require.NoError(t, second.Unlock())
	}
}

func suiteTryLock(t *testing.T, on *site) {
	key, m, other := on.key(t, "key"), on.manager(t), on.manager(t)
	for range 2 {
		l, err := m.TryLock(ctx, key, time.Minute)
		require.NoError(t, err)
		require.Equal(t, l.Value(), on.owner(t, key))
		for _, m := range []*redislock.LockManager{m, other, m, other} {
			_, err := m.TryLock(ctx, key, time.Minute)
			require.ErrorIs(t, err, redislock.ErrNotAcquired)
			var typed *redislock.Error
			require.ErrorAs(t, err, &typed)
			require.Equal(t, "trylock", typed.Op)
			require.Equal(t, on.prefix+key, typed.Key)
		}
		require.Equal(t, l.Value(), on.owner(t, key))
		require.NoError(t, l.Unlock())
	}
}

func suiteUnlockTwice(t *testing.T, on *site) {
	key, m := on.key(t, "key"), on.manager(t)
	l := acquire(t, m, key, time.Minute)
	require.NoError(t, l.Unlock())
	next := acquire(t, m, key, time.Minute)
	require.ErrorIs(t, l.Unlock(), redislock.ErrNotHeld)
	require.NotErrorIs(t, l.Unlock(), redislock.ErrLost)
	require.ErrorIs(t, l.Extend(ctx, time.Minute), redislock.ErrNotHeld)
	require.Equal(t, next.Value(), on.owner(t, key))
	require.NoError(t, next.Unlock())
}

func suiteValue(t *testing.T, on *site) {
	key, m := on.key(t, "key"), on.manager(t)
	value := "a value:with a colon, and \x00\xff"
	l := acquire(t, m, key, time.Minute, redislock.WithValue(value))
	require.Equal(t, value, l.Value())
	require.Equal(t, value, on.owner(t, key))
	next := m.Lock(ctx, key, time.Minute, redislock.WithValue("next"))
	require.ErrorIs(t, soon(t, m.Lock(ctx, key, time.Minute, redislock.WithValue(value))).Err, redislock.ErrInvalidArgument)
	require.NoError(t, l.Unlock())
	require.NoError(t, soon(t, next).Err)
	require.Equal(t, "next", on.owner(t, key))
	require.NoError(t, next.Unlock())
}

func suiteMaxQueue(t *testing.T, on *site) {
	key, m := on.key(t, "key"), on.manager(t, redislock.WithMaxQueue(2))
	holder := acquire(t, m, key, time.Minute)
	a, b := m.Lock(ctx, key, time.Minute), m.Lock(ctx, key, time.Minute)
	require.ErrorIs(t, soon(t, m.Lock(ctx, key, time.Minute)).Err, redislock.ErrQueueFull)
	on.awaitWaiting(t, key, 2)
	require.ErrorIs(t, soon(t, m.Lock(ctx, key, time.Minute)).Err, redislock.ErrQueueFull)
	require.NoError(t, acquire(t, m, on.key(t, "another"), time.Minute).Unlock(), "the limit is by key")
	require.NoError(t, holder.Unlock())
	require.NoError(t, soon(t, a).Err)
	c := m.Lock(ctx, key, time.Minute) // a place is free again
	require.NoError(t, a.Unlock())
	serve(t, b)
	serve(t, c)
}

func suiteDo(t *testing.T, on *site) {
	key, m := on.key(t, "key"), on.manager(t)
	failure := errors.New("failure")
	ran := false
	err := m.Do(ctx, key, time.Minute, func(ctx context.Context) error {
		ran = true
		l := redislock.FromContext(ctx)
		require.Equal(t, l.Value(), on.owner(t, key))
		require.NoError(t, ctx.Err())
		return failure
	})
	require.True(t, ran)
	require.ErrorIs(t, err, failure)
	require.NotErrorIs(t, err, redislock.ErrLost)
	require.Empty(t, on.owner(t, key))
	require.NoError(t, m.Do(ctx, key, time.Minute, func(context.Context) error { return nil }))

	holder := acquire(t, m, key, time.Minute)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	err = m.Do(short, key, time.Minute, func(context.Context) error {
		t.Error("ran without the lock")
		return nil
	})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, holder.Unlock())
}

func suiteDoTellsOfALoss(t *testing.T, on *site) {
	m := on.manager(t)
	for _, loss := range []string{"the lease runs out", "the key is deleted"} {
		withShortLease(t, func(ttl time.Duration) bool {
			key := on.key(t, fmt.Sprint(loss, ttl))
			var opts []redislock.LockOption
			if loss == "the key is deleted" {
				opts = append(opts, redislock.WithAutoRenew(time.Hour))
			}
			failure, ran := errors.New("failure"), false
			err := m.Do(ctx, key, ttl, func(ctx context.Context) error {
				ran = true
				if opts != nil {
					on.remove(t, key)
				}
				select {
				case <-ctx.Done():
				case <-time.After(patience):
					t.Error("not cancelled")
				}
				require.ErrorIs(t, context.Cause(ctx), redislock.ErrLost)
				return failure
			}, opts...)
			if !ran {
				t.Log(err)
				return false
			}
			require.ErrorIs(t, err, redislock.ErrLost)
			require.ErrorIs(t, err, failure)
			return true
		})
	}
}

func suiteClose(t *testing.T, on *site) {
	key, m := on.key(t, "key"), on.manager(t)
	l := acquire(t, m, key, time.Minute)
	renewed := acquire(t, m, on.key(t, "renewed"), time.Minute, redislock.WithAutoRenew(time.Hour))
	var waiting []*redislock.Lock
	for range 10 {
		waiting = append(waiting, m.Lock(ctx, key, time.Minute))
	}
	on.awaitWaiting(t, key, 10)
	require.NoError(t, m.Close())
	requireNoGoroutines(t)
	require.NoError(t, m.Close(), "closing twice is harmless")
	for _, waiter := range waiting {
		require.ErrorIs(t, soon(t, waiter).Err, redislock.ErrClosed)
		require.ErrorIs(t, waiter.Unlock(), redislock.ErrNotHeld)
	}

	require.ErrorIs(t, soon(t, m.Lock(ctx, key, time.Minute)).Err, redislock.ErrClosed)
	_, err := m.TryLock(ctx, key, time.Minute)
	require.ErrorIs(t, err, redislock.ErrClosed)
	require.ErrorIs(t, m.Do(ctx, key, time.Minute, func(context.Context) error { return nil }), redislock.ErrClosed)
	require.ErrorIs(t, l.Extend(ctx, time.Minute), redislock.ErrClosed)

	for _, l := range []*redislock.Lock{l, renewed} {
		require.NoError(t, l.Err(), "held until it is unlocked")
		require.NoError(t, l.Unlock())
	}
	require.Empty(t, on.owner(t, key))
	requireNoGoroutines(t)
}

func suiteOddKeys(t *testing.T, on *site) {
	m, other := on.manager(t), on.manager(t)
	long := make([]byte, 100_000)
	for i := range long {
		long[i] = byte(i)
	}
	for _, key := range []string{
		"{tag}", "{tag}rest", "rest{tag}", "{tag}{other}", "{", "}", "{}", "}{", "}{tag}", "{}tag}", "a}b", "{{tag}}", "{tag",
		" ", "\n", "\x00", "\xff\xfe", "*", "[a]?", ":", "1", "ключ", string(long),
	} {
		on.keys = append(on.keys, on.prefix+key)
		first := acquire(t, m, key, time.Minute)
		require.Equal(t, first.Value(), on.owner(t, key), "%.20q", key)
		second := other.Lock(ctx, key, time.Minute)
		on.awaitWaiting(t, key, 1)
		require.NoError(t, first.Extend(ctx, 2*time.Minute))
		require.Greater(t, on.left(t, key), time.Minute)
		require.NoError(t, first.Unlock())
		require.NoError(t, soon(t, second).Err)
		require.Equal(t, second.Value(), on.owner(t, key), "%.20q", key)
		require.NoError(t, second.Unlock())
		// Of a request that was slow, as with so long a key, a copy that comes late may take
		// the key, and is undone.
		eventually(t, fmt.Sprintf("%.20q is free", key), func() bool { return on.owner(t, key) == "" })
	}
}
