package redislock_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	for end := time.Now().Add(patience); len(goroutines()) > 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("goroutines are left after Close:\n" + strings.Join(goroutines(), "\n\n"))
		}
	}
}

// goroutines returns the stacks of the library's own goroutines.
func goroutines() (own []string) {
	for _, stack := range strings.Split(stacks(), "\n\n") {
		if isOwn(stack) {
			own = append(own, stack)
		}
	}
	return own
}

// stacks returns those of all goroutines.
func stacks() string {
	for size := 1 << 20; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size {
			return string(buf[:n])
		}
	}
}

// isOwn tells a goroutine of the library's from one of a test that calls it: by who
// began it, or else, if that was a timer, a context or a WaitGroup, by what it was begun
// with.
func isOwn(stack string) bool {
	for _, line := range slices.Backward(strings.Split(stack, "\n")) {
		name := strings.TrimPrefix(line, "created by ")
		if rest, ours := strings.CutPrefix(name, "github.com/redislock/redislock"); ours {
			return strings.HasPrefix(rest, ".") // and not of redislock_test, or of a package below
		}
		if strings.HasPrefix(name, "testing.") {
			return false
		}
	}
	return false
}

// patience is how long is waited for what has to come. Only what hangs misses it, also
// on a machine that is busy, and stands still for a second now and then.
const patience = 30 * time.Second

// eventually waits until a condition holds that nothing announces.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			hangs(t, "did not come to pass: "+what)
		}
	}
}

// hangs fails the test, and shows where all goroutines are.
func hangs(t *testing.T, what string) {
	t.Helper()
	t.Fatalf("%s\n%s", what, stacks())
}

// receive waits for something that has to come.
func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		hangs(t, "nothing comes")
		panic("unreachable")
	}
}

// finish waits for goroutines that have to end.
func finish(t *testing.T, wg *sync.WaitGroup) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(2 * patience): // they may have much to do
		hangs(t, "they do not end")
	}
}

// standstills counts how often the process has not got to run for long enough that
// answers come too late for a vote. It has none for a quorum then, and a fresh call may
// be told so, as it may when servers are gone.
var standstills atomic.Int64

// countStandstills is begun by TestMain.
func countStandstills() {
	for {
		before := time.Now()
		time.Sleep(5 * time.Millisecond)
		if time.Since(before) > 55*time.Millisecond {
			standstills.Add(1)
		}
	}
}

// excused tells whether a call failed for want of a majority, and for no other reason
// than that the machine stood still meanwhile: there have been more standstills than
// before it.
func excused(err error, before int64) bool {
	return err != nil && strings.Contains(err.Error(), "no majority: ") && standstills.Load() > before
}

// stalls notes for how long the process does not get to run, as happens on a busy
// machine. A test of how late something comes allows for that.
type stalls struct{ worst atomic.Int64 }

func noteStalls(t *testing.T) *stalls {
	s := new(stalls)
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	go func() {
		for {
			const rest = time.Millisecond
			before := time.Now()
			select {
			case <-ended:
				return
			case <-time.After(rest):
			}
			if late := int64(time.Since(before) - rest); late > s.worst.Load() {
				s.worst.Store(late)
			}
		}
	}()
	return s
}

// allowance is how late the punctual may be: two goroutines in turn, each after the
// worst stall that was noted, and what may befall one goroutine alone. The tests see to
// it that who is at fault is late by seconds.
func (s *stalls) allowance() time.Duration {
	time.Sleep(2 * time.Millisecond) // until a stall that has just ended is noted
	return 2*time.Duration(s.worst.Load()) + 250*time.Millisecond
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
	for {
		before := standstills.Load()
		l := m.Lock(ctx, key, ttl, opts...)
		r := soon(t, l)
		if excused(r.Err, before) {
			continue
		}
		require.NoError(t, r.Err)
		return l
	}
}

// soon is Wait for a result that must come within seconds.
func soon(t *testing.T, l *redislock.Lock) redislock.Result {
	t.Helper()
	result := make(chan redislock.Result, 1)
	go func() { result <- l.Wait() }()
	return receive(t, result)
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
	finish(t, &wg)
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
	finish(s.t, &s.wg)
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

// A gate is a hook of clients: while it is shut, no request of the library gets through.
type gate struct{ way sync.RWMutex }

func (g *gate) pass(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
	if !isGreeting(cmds) {
		g.way.RLock()
		//lint:ignore SA2001 it waits until the gate is open, and has nothing to do meanwhile
		g.way.RUnlock()
	}
	return next(ctx, cmds)
}

// shut closes the gate until open is called, or the test ends.
func (g *gate) shut(t *testing.T) (open func()) {
	g.way.Lock()
	open = sync.OnceFunc(g.way.Unlock)
	t.Cleanup(open)
	return open
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
