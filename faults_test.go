package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// passOn has n waiters over the managers pass a lock on while the disturbance
// goes on, and fails if any of them waits for longer than the bound. Half of them stand
// in line when it begins, and must not be thrown out of it. The others come amid it: they
// may find Redis out of reach several times in a row, are told so, and call again. look
// is a client that is not disturbed.
func passOn(t *testing.T, look *redis.Client, managers []*redislock.LockManager, n int, ttl, bound time.Duration, disturb func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	var wg sync.WaitGroup
	wait := func(i int) {
		m := managers[i%len(managers)]
		l := m.Lock(ctx, "key", ttl)
		wg.Go(func() {
			r := l.Wait()
			for unreachable := new(*net.OpError); i >= n/2 && ctx.Err() == nil && (errors.Is(r.Err, io.EOF) || errors.As(r.Err, unreachable)); {
				l = m.Lock(ctx, "key", ttl)
				r = l.Wait()
			}
			if r.Err != nil {
				t.Errorf("waiter %d: %v", i, r.Err)
			}
			time.Sleep(2 * time.Millisecond) // holds for a moment, so that faults meet a line
			_ = l.Unlock()
		})
	}
	holder := acquire(t, managers[0], "key", time.Minute)
	for i := range n / 2 {
		wait(i)
	}
	awaitWaiters(t, look, "key", n/2)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				disturb()
			}
		}
	}()
	for i := n / 2; i < n; i++ {
		wait(i)
	}
	_ = holder.Unlock() // it may have been lost, or Redis be out of reach until the lease ends
	finish(t, &wg)
	close(stop)
	<-stopped
}

func managersOf(t *testing.T, client redis.UniversalClient, n int, opts ...redislock.Option) (all []*redislock.LockManager) {
	for range n {
		all = append(all, newManager(t, client, opts...))
	}
	return all
}

func TestNoWakeUpIsLostWithNotificationsOff(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(nil)
	managers := managersOf(t, client, 4, redislock.WithKeyspaceEvents(redislock.KeyspaceOff))
	passOn(t, client, managers, 50, 2*time.Second, 20*time.Second, func() { time.Sleep(time.Millisecond) })
	require.Equal(t, "", client.ConfigGet(ctx, "notify-keyspace-events").Val()["notify-keyspace-events"])
	requireClean(t, client)
}

func TestNoWakeUpIsLostWithScriptFlush(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(nil)
	passOn(t, client, managersOf(t, client, 4), 50, time.Minute, 20*time.Second, func() {
		client.ScriptFlush(ctx)
		time.Sleep(time.Millisecond)
	})
	requireClean(t, client)
}

// The queue, the fence and the lock itself are lost: whoever waits still gets
// the lock, once the one he waits for is released or its lease has ended.
func TestNoWakeUpIsLostWithFlushAll(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(nil)
	passOn(t, client, managersOf(t, client, 4), 50, time.Second, 40*time.Second, func() {
		client.FlushAll(ctx)
		time.Sleep(30 * time.Millisecond)
	})
	requireClean(t, client)
}

// Restarted empty, Redis knows of no line. The waiters join again, in their old
// order. rueidislock's waiter hangs for ever after an outage of 1.5 s.
func TestLineSurvivesARestartOfAnEmptyRedis(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(nil)
	var shut atomic.Bool // the way of the managers to Redis
	managers := managersOf(t, server.Client(func(o *redis.Options) {
		o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if shut.Load() {
				return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
			}
			return net.Dial(network, addr)
		}
	}), 3)
	holder := acquire(t, managers[0], "key", 10*time.Second) // at the end of which all look
	const n = 12
	served := &turns{t: t}
	for i := range n {
		served.add(i, managers[i%3].Lock(ctx, "key", 10*time.Second))
		awaitWaiters(t, client, "key", i+1)
	}
	token := holder.Token()
	shut.Store(true)
	server.Kill()
	time.Sleep(1500 * time.Millisecond)
	server.Run()
	// Redis is empty: someone else is in before anybody is back, and stays until all
	// are.
	require.NoError(t, client.Set(ctx, "key", "foreign", 20*time.Second).Err())
	shut.Store(false)
	awaitWaiters(t, client, "key", n)
	eventually(t, "all hear of the key", func() bool {
		const channel = "__keyspace@0__:key"
		return client.PubSubNumSub(ctx, channel).Val()[channel] == int64(len(managers))
	})
	require.NoError(t, client.Del(ctx, "key").Err())
	served.requireInOrder()
	last := acquire(t, managers[0], "key", time.Minute)
	require.Greater(t, last.Token(), token, "the token fell with the restart")
	require.NoError(t, last.Unlock())
	_ = holder.Unlock()
	requireClean(t, client)
}

func TestTokensRiseWhateverBecomesOfRedis(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(nil)
	managers := managersOf(t, client, 2)
	var last int64
	for i, misfortune := range []func(){
		func() {},
		func() { require.NoError(t, client.Del(ctx, "key").Err()) },
		func() { require.NoError(t, client.Del(ctx, "key", redislock.FenceKey).Err()) },
		func() { require.NoError(t, client.FlushAll(ctx).Err()) },
		func() { server.Kill(); server.Run() },
		// What a failover that lost writes leaves behind: an older fence.
		func() { require.NoError(t, client.Set(ctx, redislock.FenceKey, 5, 0).Err()) },
		func() {
			require.NoError(t, client.Decr(ctx, redislock.FenceKey).Err())
			time.Sleep(15 * time.Millisecond) // the outage
		},
		func() { // likewise, and the new server does not know the scripts
			require.NoError(t, client.Decr(ctx, redislock.FenceKey).Err())
			require.NoError(t, client.ScriptFlush(ctx).Err())
			time.Sleep(15 * time.Millisecond)
		},
	} {
		for round := range 6 {
			m := managers[round%2]
			l := acquire(t, m, "key", time.Minute)
			require.Greater(t, l.Token(), last, "misfortune %d, round %d", i, round)
			last = l.Token()
			if round == 1 {
				misfortune() // while it is held
			}
			_ = l.Unlock()
			if round == 3 {
				misfortune() // while it is free
			}
		}
	}
}

// redsync: the context ends in the middle of the acquisition, the clean-up runs
// on that dead context, and the key stays for its whole TTL.
func TestContextThatEndsMidAcquireLeavesNothing(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(nil)
	m := newManager(t, client)
	require.NoError(t, acquire(t, m, "warm", time.Minute).Unlock())
	for i := range 200 {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(i)*time.Microsecond)
		l := m.Lock(ctx, fmt.Sprint("key", i), time.Hour)
		if r := soon(t, l); r.OK() {
			require.NoError(t, l.Unlock())
		}
		cancel()
	}
	requireClean(t, client)
}

// redsync: UnlockContext with a cancelled context leaves the key.
func TestUnlockAfterTheContextHasEnded(t *testing.T) {
	client := redistest.Start(t).Client(nil)
	m := newManager(t, client)
	ctx, cancel := context.WithCancel(ctx)
	l := m.Lock(ctx, "key", time.Hour)
	require.True(t, soon(t, l).OK())
	cancel()
	require.NoError(t, l.Err(), "the lock outlives the context it was asked for with")
	require.NoError(t, l.Unlock())
	requireClean(t, client)
}

// rueidislock: a waiter whose neighbour is cancelled in the middle of acquiring
// hangs on a free lock.
func TestWaiterWhoseNeighbourIsCancelledGetsTheLock(t *testing.T) {
	client := redistest.Start(t).Client(nil)
	m, m2 := newManager(t, client), newManager(t, client)
	for i := range 100 {
		holder := acquire(t, m, "key", time.Minute)
		ctx, cancel := context.WithCancel(ctx)
		neighbour := m2.Lock(ctx, "key", time.Minute)
		waiter := m2.Lock(t.Context(), "key", time.Minute)
		if i%2 == 0 {
			awaitWaiters(t, client, "key", 2)
		}
		cancel()
		require.NoError(t, holder.Unlock())
		_ = soon(t, neighbour)
		_ = neighbour.Unlock()
		serve(t, waiter)
	}
	requireClean(t, client)
}

// rueidislock: 256 goroutines with a key each, and 172 never return.
func TestManyGoroutinesOnTheirOwnKeysAllReturn(t *testing.T) {
	client := redistest.Start(t).Client(nil)
	m := newManager(t, client)
	var wg sync.WaitGroup
	for i := range 256 {
		wg.Go(func() {
			for j := range 40 {
				l := m.Lock(ctx, fmt.Sprint("key", i), time.Minute)
				if r := l.Wait(); r.Err != nil {
					t.Errorf("goroutine %d, round %d: %v", i, j, r.Err)
				}
				if err := l.Unlock(); err != nil {
					t.Errorf("goroutine %d, round %d: %v", i, j, err)
				}
			}
		})
	}
	finish(t, &wg)
	requireClean(t, client)
}

// Redis frozen: the loss is signalled in time, nothing hangs, and when Redis is
// back all is cleaned up.
func TestFrozenRedis(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(func(o *redis.Options) { o.ReadTimeout = 10 * time.Second }) // which nobody is to wait for
	m := newManager(t, client)
	t.Cleanup(server.Thaw)
	withShortLease(t, func(ttl time.Duration) bool {
		l, ok := acquireShort(t, m, "key", ttl, redislock.WithAutoRenew(time.Hour))
		if !ok {
			return false
		}
		done := l.Done()
		waiter := m.Lock(ctx, "key", time.Minute)
		eventually(t, "in line", func() bool { return waiters(t, client, "key") == 1 || l.Err() != nil })
		stalls := noteStalls(t)
		server.Freeze()
		if l.Err() != nil {
			server.Thaw()
			serve(t, waiter)
			return false
		}

		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, soon(t, m.Lock(short, "other", time.Minute)).Err, context.DeadlineExceeded)
		err := m.Do(short, "other", time.Minute, func(context.Context) error { return nil })
		require.ErrorIs(t, err, context.DeadlineExceeded)

		receive(t, done)
		late := time.Since(l.ValidUntil())
		require.LessOrEqual(t, late, stalls.allowance(), "told of the loss after ValidUntil")
		require.ErrorIs(t, l.Err(), redislock.ErrLost)
		require.ErrorIs(t, l.Unlock(), redislock.ErrLost)

		server.Thaw()
		serve(t, waiter)
		return true
	})
	requireClean(t, client)
}

// redlock-universal sends 28,354 scripts in 2 s for a TTL under 1.25 s, and
// rueidislock 13,000 a second for each lock held.
func TestShortLeasesCauseNoStorm(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		l := acquire(t, b.manager, "key", 300*time.Millisecond, redislock.WithAutoRenew(time.Hour))
		waiter := b.manager.Lock(ctx, "key", 20*time.Millisecond)
		synctest.Wait()
		before := b.server.CommandCount()
		time.Sleep(2 * time.Second)
		require.Less(t, b.server.CommandCount()-before, 400) // 20 renewals of 4, 8 looks of 12, counting those in scripts
		require.NoError(t, l.Err())
		require.NoError(t, l.Unlock())
		serve(t, waiter)
	})
}

// The key was set and the token refused: the caller gets the error, and nothing
// stays behind.
func TestFenceOfTheWrongType(t *testing.T) {
	client := redistest.Start(t).Client(nil)
	m := newManager(t, client)
	refused := func(lock func() (*redislock.Lock, error)) {
		t.Helper()
		for range 100 { // a fence that was raised more than 10 ms ago is mended first
			eventually(t, "the key is gone", func() bool { return client.Exists(ctx, "key").Val() == 0 })
			require.NoError(t, client.Del(ctx, redislock.FenceKey).Err())
			require.NoError(t, acquire(t, m, "key", time.Minute).Unlock())
			require.NoError(t, client.Del(ctx, redislock.FenceKey).Err())
			require.NoError(t, client.LPush(ctx, redislock.FenceKey, "not a number").Err())
			l, err := lock()
			if err != nil {
				require.ErrorContains(t, err, "WRONGTYPE")
				return
			}
			require.NoError(t, l.Unlock())
		}
		t.Fatal("the fence is always mended")
	}
	refused(func() (*redislock.Lock, error) { return m.TryLock(ctx, "key", time.Hour) })
	refused(func() (*redislock.Lock, error) {
		l := m.Lock(ctx, "key", time.Hour)
		return l, soon(t, l).Err
	})
	eventually(t, "the key is gone", func() bool { return client.Exists(ctx, "key").Val() == 0 })
	require.NoError(t, client.Del(ctx, redislock.FenceKey).Err())
	require.NoError(t, acquire(t, m, "key", time.Minute).Unlock())
	requireClean(t, client)
}

// TryLock in a loop does not keep Lock from getting its turn.
func TestTryLocksDoNotStarveLock(t *testing.T) {
	client := redistest.Start(t).Client(nil)
	m := newManager(t, client)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if l, err := m.TryLock(ctx, "key", time.Minute); err == nil {
					_ = l.Unlock()
				}
			}
		})
	}
	for range 20 {
		l := m.Lock(ctx, "key", time.Minute)
		if r := soon(t, l); r.Err != nil {
			t.Error(r.Err)
		}
		_ = l.Unlock()
	}
	close(stop)
	finish(t, &wg)
	requireClean(t, client)
}

// A lock that is left to expire, and that nobody asks about, is forgotten all
// the same: the manager remembers those that live.
func TestLocksLeftToExpireAreForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		m := b.manager
		acquire(t, m, "key", 20*time.Millisecond, redislock.WithValue("worker"))
		time.Sleep(20 * time.Millisecond)
		again := acquire(t, m, "key", time.Minute, redislock.WithValue("worker"))
		require.NoError(t, again.Unlock())
		for i := range 300 {
			m.Lock(ctx, "key", 2*time.Millisecond) // each leaves its lease to run out
			m.Lock(ctx, "key", 2*time.Millisecond) // and this one waits for that in the line
			m.Lock(ctx, fmt.Sprint("key", i), 2*time.Millisecond, redislock.WithValue("worker")).Wait()
			require.LessOrEqual(t, m.Remembered(), 3)
			time.Sleep(10 * time.Millisecond)
		}
		last := acquire(t, m, "key", time.Minute)
		require.NoError(t, last.Unlock())
	})
}

// With Redis gone, Unlock says so, and does not wait for the end of a long lease.
// The release is made up for when Redis is back.
func TestUnlockWithoutRedis(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	client := server.Client(func(o *redis.Options) { o.DialerRetries = 1 })
	m := newManager(t, client)
	l := acquire(t, m, "key", time.Hour)
	server.Kill()
	unlocked := make(chan error, 1)
	go func() { unlocked <- l.Unlock() }()
	select {
	case err := <-unlocked:
		require.Error(t, err)
		require.NotErrorIs(t, err, redislock.ErrNotHeld)
	case <-time.After(patience):
		hangs(t, "Unlock hangs")
	}
	require.ErrorIs(t, l.Err(), redislock.ErrReleased)
	server.Run()
	eventually(t, "released after all", func() bool {
		n, err := client.Exists(ctx, "key").Result()
		return err == nil && n == 0
	})
	requireClean(t, client)
}
