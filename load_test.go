package redislock_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redislock/redislock"
)

// A load has callers compete for keys, and notices when two hold the same at a
// time, or tokens do not rise.
type load struct {
	t       *testing.T
	stop    atomic.Bool
	done    sync.WaitGroup
	served  atomic.Int64
	failed  atomic.Int64
	forgets bool // Redis may lose locks that are held: calls may fail, and two may hold

	mu      sync.Mutex
	holders map[string]*redislock.Lock
	tokens  map[string]int64
}

func newLoad(t *testing.T) *load {
	l := &load{t: t, holders: make(map[string]*redislock.Lock), tokens: make(map[string]int64)}
	t.Cleanup(func() { // of a test that has failed half-way
		l.stop.Store(true)
		l.done.Wait()
	})
	return l
}

func (l *load) run(m *redislock.LockManager, key string, ttl time.Duration) {
	l.done.Go(func() {
		for !l.stop.Load() {
			ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
			lock := m.Lock(ctx, key, ttl)
			if r := lock.Wait(); r.Err == nil {
				l.hold(key, lock)
			} else if l.failed.Add(1); !l.forgets {
				l.t.Error(r.Err)
			}
			if err := lock.Unlock(); err != nil && !l.forgets {
				l.t.Error(err)
			}
			cancel()
		}
	})
}

func (l *load) hold(key string, lock *redislock.Lock) {
	l.mu.Lock()
	if other := l.holders[key]; !l.forgets && other != nil && other.Err() == nil && lock.Err() == nil {
		l.t.Errorf("%s has two holders, tokens %d and %d", key, other.Token(), lock.Token())
	}
	if before := l.tokens[key]; lock.Token() <= before && lock.Err() == nil {
		l.t.Errorf("%s: token %d after %d", key, lock.Token(), before)
	}
	l.holders[key], l.tokens[key] = lock, max(l.tokens[key], lock.Token())
	l.mu.Unlock()
	l.served.Add(1)
	time.Sleep(100 * time.Microsecond) // the time for others to be wrong
	l.mu.Lock()
	if l.holders[key] == lock {
		delete(l.holders, key)
	}
	l.mu.Unlock()
}

// goesOn waits until so many more have been served.
func (l *load) goesOn(n int64) {
	l.t.Helper()
	want := l.served.Load() + n
	for end := time.Now().Add(patience); l.served.Load() < want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("no more than %d of %d were served", l.served.Load()-want+n, n)
		}
	}
}

func (l *load) end() {
	l.stop.Store(true)
	finish(l.t, &l.done)
	l.t.Logf("%d served, %d failed", l.served.Load(), l.failed.Load())
}
