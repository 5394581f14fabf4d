package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/ownvalue"
)

func init() { ownvalue.Foresee() } // each acquisition is known by its value

// A caller acquires locks one after another, in one of the ways in which
// programs do.
type caller struct {
	name    string
	process *process
	truth   *truth
	random  *rand.Rand
	keys    []string
	scale   time.Duration // of the TTLs
	pause   time.Duration // before each attempt, at most
	rounds  int
	done    *sync.WaitGroup // for the goroutines that watch Done
}

func (c *caller) run() {
	for round := range c.rounds {
		c.sleep(c.pause)
		a := &attempt{
			name:    fmt.Sprintf("%s.%d", c.name, round+1),
			process: c.process,
			ttl:     c.scale/10 + time.Duration(c.random.Int64N(int64(c.scale))),
		}
		a.ttl = max(a.ttl.Truncate(time.Millisecond), 20*time.Millisecond)
		key := c.keys[c.random.IntN(len(c.keys))]
		if c.over() {
			return
		}
		switch c.random.IntN(10) {
		case 0:
			c.tryLock(a, key)
		case 1:
			c.do(a, key)
		case 2:
			c.leave(a, key)
		default:
			c.lock(a, key)
		}
	}
}

// over tells whether the caller's process has ended.
func (c *caller) over() bool {
	c.truth.net.mu.Lock()
	defer c.truth.net.mu.Unlock()
	return c.process.gone
}

func (c *caller) sleep(most time.Duration) {
	time.Sleep(time.Duration(c.random.Int64N(int64(most))))
}

func (c *caller) locked(f func()) {
	c.truth.net.mu.Lock()
	defer c.truth.net.mu.Unlock()
	f()
}

// enter notes what is about to be called.
func (c *caller) enter(a *attempt, key, what string) {
	c.locked(func() {
		a.key = c.truth.key(key)
		c.truth.story.add("%s: %s %s, ttl %v", a, what, key, a.ttl)
		c.truth.enter(a)
	})
}

// context returns a context that may end before the caller's turn.
func (c *caller) context() (context.Context, context.CancelFunc) {
	switch c.random.IntN(4) {
	case 0:
		return context.WithTimeout(context.Background(), 1+time.Duration(c.random.Int64N(int64(2*c.scale))))
	case 1:
		ctx, cancel := context.WithCancel(context.Background())
		stop := time.AfterFunc(time.Duration(c.random.Int64N(int64(2*c.scale))), cancel).Stop
		return ctx, func() { stop(); cancel() }
	}
	return context.WithCancel(context.Background())
}

// start calls Lock.
func (c *caller) start(ctx context.Context, a *attempt, key string, renew bool) *redislock.Lock {
	var opts []redislock.LockOption
	if c.random.IntN(2) == 0 {
		a.value = a.name
		ctx = ownvalue.With(ctx, a.value)
	}
	what := "Lock"
	if renew {
		what = "Lock with auto-renewal of"
		opts = append(opts, redislock.WithAutoRenew(a.ttl+time.Duration(c.random.Int64N(int64(3*a.ttl)))))
	}
	c.enter(a, key, what)
	l := c.process.manager.Lock(ctx, key, a.ttl, opts...)
	c.locked(func() {
		a.lock = l
		if a.value == "" {
			a.value = l.Value()
			c.truth.identify(a)
		}
	})
	if c.random.IntN(2) == 0 {
		c.watch(a, l)
	}
	return l
}

// watch looks out for the loss of a lock.
func (c *caller) watch(a *attempt, l *redislock.Lock) {
	done := l.Done()
	c.done.Go(func() {
		<-done
		err := l.Err()
		c.locked(func() { c.truth.isDone(a, err, true) })
	})
}

// wait waits for the outcome and has it checked.
func (c *caller) wait(ctx context.Context, a *attempt, l *redislock.Lock) bool {
	r := l.Wait()
	c.locked(func() {
		if r.Err != nil {
			c.truth.wasRefused(a, r.Err)
			c.checkPrompt(ctx, a, r.Err)
		} else if !c.process.gone {
			c.truth.wasGranted(a, l, r)
		}
	})
	return r.OK() && !c.over()
}

// checkPrompt checks that a context that ends is heeded at once.
func (c *caller) checkPrompt(ctx context.Context, a *attempt, err error) {
	ended := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	if deadline, ok := ctx.Deadline(); ok && errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil && time.Now().After(deadline) {
		c.truth.story.violation("Wait of %s has ended %v after its context", a, time.Since(deadline))
	}
	if ended && ctx.Err() == nil && !errors.As(err, new(interface{ Timeout() bool })) {
		c.truth.story.violation("Wait of %s says %v, and its context has not ended", a, err)
	}
}

func (c *caller) unlock(a *attempt, l *redislock.Lock) {
	c.locked(func() { c.truth.unlocks(a) })
	began := time.Now()
	err := l.Unlock()
	took := time.Since(began)
	c.locked(func() {
		if !c.process.gone {
			c.truth.wasUnlocked(a, err, took)
		}
	})
	if c.random.IntN(4) == 0 {
		if err := l.Unlock(); !errors.Is(err, redislock.ErrNotHeld) {
			c.locked(func() { c.truth.story.violation("G8: the second Unlock of %s says: %v", a, err) })
		}
	}
}

// lock waits, holds and unlocks.
func (c *caller) lock(a *attempt, key string) {
	renew := c.random.IntN(4) == 0
	ctx, cancel := c.context()
	defer cancel()
	l := c.start(ctx, a, key, renew)
	if c.wait(ctx, a, l) {
		c.hold(a, l, renew)
	}
	if !c.over() {
		c.unlock(a, l)
	}
}

// hold keeps the lock for a while, now and then for too long.
func (c *caller) hold(a *attempt, l *redislock.Lock, renew bool) {
	most := a.ttl / 4
	switch c.random.IntN(6) {
	case 0:
		most = a.ttl * 3 / 2
	case 1:
		most = a.ttl
	}
	if renew {
		most = 3 * a.ttl
	}
	c.sleep(most)
	if c.random.IntN(4) == 0 && !c.over() {
		c.extend(a, l)
		c.sleep(most)
	}
	if c.random.IntN(4) == 0 && !c.over() {
		err := l.Err()
		c.locked(func() {
			if err != nil && !a.done {
				c.truth.isDone(a, err, false)
			}
		})
	}
}

func (c *caller) extend(a *attempt, l *redislock.Lock) {
	ttl := max(a.ttl/2+time.Duration(c.random.Int64N(int64(a.ttl))), time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), a.ttl)
	defer cancel()
	c.locked(func() { c.truth.story.add("%s extends %s to %v", a, a.key.name, ttl) })
	err := l.Extend(ctx, ttl)
	c.locked(func() {
		c.truth.story.add("%s: extension of %s: %v", a, a.key.name, err)
		if !c.process.gone {
			c.truth.checkValidity(a)
		}
	})
}

// leave calls Unlock before Wait, maybe long before the lock's turn.
func (c *caller) leave(a *attempt, key string) {
	a.aside = true
	l := c.start(context.Background(), a, key, false)
	c.sleep(2 * c.scale)
	if c.over() {
		return
	}
	c.unlock(a, l)
	if r := l.Wait(); r.Err != nil && !errors.Is(r.Err, redislock.ErrReleased) {
		c.locked(func() { c.truth.story.add("%s had failed: %v", a, r.Err) })
	}
}

func (c *caller) tryLock(a *attempt, key string) {
	a.try, a.value = true, a.name
	c.enter(a, key, "TryLock")
	ctx, cancel := context.WithTimeout(context.Background(), c.scale)
	defer cancel()
	l, err := c.process.manager.TryLock(ownvalue.With(ctx, a.value), key, a.ttl)
	c.locked(func() {
		if err != nil {
			c.truth.wasRefused(a, err)
			c.checkPrompt(ctx, a, err)
		} else if !c.process.gone {
			c.truth.wasGranted(a, l, l.Wait())
		}
	})
	if err != nil || c.over() {
		return
	}
	c.watch(a, l)
	c.hold(a, l, false)
	if !c.over() {
		c.unlock(a, l)
	}
}

func (c *caller) do(a *attempt, key string) {
	a.value = a.name
	c.enter(a, key, "Do")
	ctx, cancel := c.context()
	defer cancel()
	ran := false
	err := c.process.manager.Do(ownvalue.With(ctx, a.value), key, a.ttl, func(ctx context.Context) error {
		l := redislock.FromContext(ctx)
		c.locked(func() {
			ran = true
			if !c.process.gone {
				c.truth.wasGranted(a, l, l.Wait())
			}
		})
		if c.over() {
			return nil
		}
		timer := time.NewTimer(1 + time.Duration(c.random.Int64N(int64(a.ttl*5/4))))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), redislock.ErrLost) {
				c.locked(func() { c.truth.isDone(a, context.Cause(ctx), true) })
			}
		}
		if !c.over() {
			c.locked(func() { c.truth.unlocks(a) })
		}
		return nil
	})
	c.locked(func() {
		switch {
		case c.process.gone:
		case ran:
			c.truth.wasUnlocked(a, err, 0)
		default:
			c.truth.wasRefused(a, err)
			c.checkPrompt(ctx, a, err)
		}
	})
}
