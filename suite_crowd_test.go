package redislock_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
)

// A room is what a key guards. The race detector minds two who are in it at once,
// and so does the room.
type room struct {
	inside atomic.Int32
	visits int // guarded by the lock alone
	token  int64
}

// enter is called by a holder; tokens tells whether they are to rise.
func (r *room) enter(t *testing.T, token int64, tokens bool) {
	if r.inside.Add(1) != 1 {
		t.Error("two holders at once")
	}
	r.visits++
	if tokens && token <= r.token {
		t.Errorf("token %d after %d", token, r.token)
	}
	r.token = token
}

func (r *room) leave() { r.inside.Add(-1) }

// Programs that use SET NX PX and an owner-checked delete exclude the library's
// locks, and are excluded by them.
func suiteForeignLockers(t *testing.T, on *site) {
	key, managers := on.key(t, "key"), on.managers(t, 2)
	patient, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var shared room
	done := make(chan struct{}) // the library's callers are
	visits := 0                 // of the others

	l := acquire(t, managers[0], key, time.Minute)
	ok, err := on.tryForeign(key, "foreign", time.Hour)
	require.NoError(t, err)
	require.False(t, ok)
	require.Equal(t, l.Value(), on.owner(t, key))
	require.NoError(t, l.Unlock())

	ok, err = on.tryForeign(key, "foreign", time.Hour)
	require.NoError(t, err)
	require.True(t, ok)
	_, err = managers[0].TryLock(ctx, key, time.Minute)
	require.ErrorIs(t, err, redislock.ErrNotAcquired)
	require.Equal(t, "foreign", on.owner(t, key))

	var foreign, own sync.WaitGroup
	for i := range 3 {
		foreign.Go(func() {
			value := fmt.Sprint("foreign", i)
			for rounds := 0; ; rounds++ {
				got, err := on.tryForeign(key, value, time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				if got {
					shared.enter(t, 0, false)
					visits++ // guarded by the lock too
					shared.leave()
					if held, err := on.releaseForeign(key, value); err != nil || !held {
						t.Errorf("a foreign lock was lost: %v", err)
					}
				}
				select {
				case <-done:
					return
				case <-time.After(time.Duration(rounds%7) * time.Millisecond):
				}
			}
		})
	}
	for _, m := range managers {
		for range 4 {
			own.Go(func() {
				for range 10 {
					l := m.Lock(patient, key, time.Minute)
					if r := l.Wait(); r.Err != nil {
						t.Error(r.Err)
						return
					}
					shared.enter(t, 0, false)
					shared.leave()
					if err := l.Unlock(); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	held, err := on.releaseForeign(key, "foreign")
	finish(t, &own)
	close(done)
	finish(t, &foreign)
	require.NoError(t, err)
	require.True(t, held, "a foreign lock was lost")
	require.Equal(t, 80, shared.visits-visits)
}

// Managers that come to a free key at the same moment get it one after another,
// and none keeps part of it from the others while it waits.
func suiteAllAtOnce(t *testing.T, on *site) {
	managers := on.managers(t, 3)
	patient, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for i := range 50 {
		key := on.key(t, fmt.Sprint("key", i))
		var guarded room
		var wg sync.WaitGroup
		for _, m := range managers {
			wg.Go(func() {
				l := m.Lock(patient, key, time.Minute)
				if r := l.Wait(); r.Err != nil {
					t.Error(r.Err)
					return
				}
				guarded.enter(t, l.Token(), on.tokens)
				guarded.leave()
				if err := l.Unlock(); err != nil {
					t.Error(err)
				}
			})
		}
		finish(t, &wg)
		require.Equal(t, len(managers), guarded.visits)
	}
}

// Many goroutines of several managers on many keys, in every slot.
func suiteStress(t *testing.T, on *site) {
	const goroutines, rounds, keys = 64, 20, 32
	managers := on.managers(t, 3)
	patient, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var rooms [keys]room
	var names [keys]string
	for i := range names {
		names[i] = on.key(t, fmt.Sprint("key", i))
	}
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := 0; i < rounds; i++ {
				k := (g*7 + i*5) % keys
				m := managers[g%len(managers)]
				before, ran := standstills.Load(), false
				err := m.Do(patient, names[k], time.Minute, func(ctx context.Context) error {
					ran = true
					l := redislock.FromContext(ctx)
					rooms[k].enter(t, l.Token(), on.tokens)
					defer rooms[k].leave()
					return l.Err()
				})
				if !ran && excused(err, before) {
					i--
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	finish(t, &wg)
	visits := 0
	for i := range rooms {
		visits += rooms[i].visits
	}
	require.Equal(t, goroutines*rounds, visits)
}

// A thousand locks that nobody contends for are all held at the same time. They are not
// all asked for at once, since of a quorum on a slow machine nobody might be answered in
// time.
func suiteThousandLocks(t *testing.T, on *site) {
	const n = 1000
	m := on.manager(t)
	var names [n]string
	var locks [n]*redislock.Lock
	for i := range n {
		names[i] = on.key(t, fmt.Sprint("key", i))
	}
	var wg sync.WaitGroup
	const atOnce = 50
	for first := range atOnce {
		wg.Go(func() {
			for i := first; i < n; i += atOnce {
				before := standstills.Load()
				locks[i] = m.Lock(ctx, names[i], 5*time.Minute)
				r := locks[i].Wait()
				if excused(r.Err, before) {
					i -= atOnce
				} else if r.Err != nil {
					t.Error(r.Err)
				}
			}
		})
	}
	finish(t, &wg)
	for i, l := range locks {
		require.NoError(t, l.Err())
		require.Equal(t, l.Value(), on.owner(t, names[i]))
	}
	for first := range atOnce {
		wg.Go(func() {
			for i := first; i < n; i += atOnce {
				if err := locks[i].Unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	finish(t, &wg)
}
