package redislock_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

var ctx = context.Background()

// onEach runs a test on a real redis-server and on miniredis.
func onEach(t *testing.T, test func(t *testing.T, client *redis.Client)) {
	t.Run("redis", func(t *testing.T) {
		test(t, redistest.Start(t).Client(nil))
	})
	t.Run("miniredis", func(t *testing.T) {
		server := miniredis.RunT(t)
		server.ClockTTL(true)
		client := redis.NewClient(&redis.Options{Addr: server.Addr()})
		t.Cleanup(func() { client.Close() })
		test(t, client)
	})
}

// newManager returns a manager that is closed at the end of the test, which
// fails if it leaves a goroutine or anything in memory.
func newManager(t *testing.T, client redis.UniversalClient, opts ...redislock.Option) *redislock.LockManager {
	t.Helper()
	checkGoroutines(t)
	m, err := redislock.NewLockManager(client, opts...)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, m.Close())
		require.True(t, m.Idle(), "the closed manager remembers locks")
	})
	return m
}

// checkGoroutines has the end of the test see to it that none is left, once the
// last manager is closed.
func checkGoroutines(t *testing.T) {
	if !checked[t] {
		checked[t] = true
		t.Cleanup(func() { requireNoGoroutines(t) })
	}
}

var checked = make(map[*testing.T]bool)

// requireNoGoroutines allows for those that are on their last instruction.
func requireNoGoroutines(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(time.Second); len(goroutines()) > 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("goroutines are left after Close:\n" + strings.Join(goroutines(), "\n\n"))
		}
	}
}

// goroutines returns the stacks of the library's own goroutines.
func goroutines() (own []string) {
	buf := make([]byte, 1<<22)
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "created by github.com/redislock/redislock.(") {
			own = append(own, stack)
		}
	}
	return own
}

// eventually waits until a condition holds that nothing announces.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not come to pass: " + what)
		}
	}
}

// waiters returns how many stand in the line for a key in Redis.
func waiters(t *testing.T, client redis.UniversalClient, key string) int {
	t.Helper()
	queue, _ := redislock.KeysOf(key)
	n, err := client.ZCard(ctx, queue).Result()
	require.NoError(t, err)
	return int(n)
}

func awaitWaiters(t *testing.T, client redis.UniversalClient, key string, n int) {
	t.Helper()
	eventually(t, "waiters in line", func() bool { return waiters(t, client, key) == n })
}

// requireClean checks that Redis holds nothing but what goes by itself: the fence,
// and for a minute the places of waiters that were skipped.
func requireClean(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	if t.Failed() {
		return // what a test leaves that has gone wrong says nothing
	}
	var keys []string
	eventually(t, "nothing left in Redis", func() bool {
		var err error
		keys, err = client.Keys(ctx, "*").Result()
		require.NoError(t, err)
		return !slices.ContainsFunc(keys, func(key string) bool {
			return key != redislock.FenceKey && !strings.HasPrefix(key, redislock.SkippedKeys)
		})
	})
	for _, key := range keys {
		ttl, err := client.PTTL(ctx, key).Result()
		require.NoError(t, err)
		require.Positive(t, ttl, "%s would outlive its use", key)
	}
}

// acquire waits for a lock that must be acquired.
func acquire(t *testing.T, m *redislock.LockManager, key string, ttl time.Duration, opts ...redislock.LockOption) *redislock.Lock {
	t.Helper()
	l := m.Lock(ctx, key, ttl, opts...)
	r := soon(t, l)
	require.NoError(t, r.Err)
	return l
}

// soon is Wait for a result that must come within seconds.
func soon(t *testing.T, l *redislock.Lock) redislock.Result {
	t.Helper()
	result := make(chan redislock.Result, 1)
	go func() { result <- l.Wait() }()
	select {
	case r := <-result:
		return r
	case <-time.After(15 * time.Second):
		buf := make([]byte, 1<<20)
		t.Fatalf("Wait hangs\n%s", buf[:runtime.Stack(buf, true)])
		panic("unreachable")
	}
}

// serve waits for the turn of a waiter, which comes within seconds, and releases.
func serve(t *testing.T, l *redislock.Lock) {
	t.Helper()
	require.NoError(t, soon(t, l).Err)
	require.NoError(t, l.Unlock())
}

// allAtOnce has n callers acquire a key each and release it, all at once.
func allAtOnce(t *testing.T, m *redislock.LockManager, n int, key func(i int) string) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			l := m.Lock(ctx, key(i), time.Minute)
			if err := errors.Join(l.Wait().Err, l.Unlock()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// turns notes in which order waiters are served.
type turns struct {
	t      *testing.T
	wg     sync.WaitGroup
	mu     sync.Mutex
	served []int
}

// add has a goroutine wait for the lock, and release it at once. i tells when it
// is to be its turn.
func (s *turns) add(i int, l *redislock.Lock) {
	s.wg.Go(func() {
		if r := l.Wait(); r.Err != nil {
			s.t.Error(r.Err)
		}
		s.mu.Lock()
		s.served = append(s.served, i)
		s.mu.Unlock()
		if err := l.Unlock(); err != nil {
			s.t.Error(err)
		}
	})
}

// requireInOrder waits until all have been served, and checks in which order.
func (s *turns) requireInOrder() {
	s.t.Helper()
	s.wg.Wait()
	require.IsIncreasing(s.t, s.served)
}

// A pipelineHook stands between the client and Redis where pipelines pass, which
// is how the library sends all that has to do with locks.
type pipelineHook func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error

func (pipelineHook) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (pipelineHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (h pipelineHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { return h(ctx, cmds, next) }
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
