package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/ownvalue"
	"github.com/redislock/redislock/test/history"
)

func init() { ownvalue.Foresee() } // each acquisition is known by its value

// A caller acquires locks one after the other, in every way there is, and records
// what it asked for and what it was told.
type caller struct {
	worker   *worker
	manager  *redislock.LockManager
	at       int // which manager
	name     string
	rng      *rand.Rand
	resource *writer
}

func (c *caller) run() {
	for n := 0; !c.worker.stop.Load(); n++ {
		c.acquire(fmt.Sprintf("%s/%d", c.name, n))
		if c.chance(30) {
			time.Sleep(c.upTo(20 * time.Millisecond))
		}
	}
}

func (c *caller) chance(percent int) bool { return c.rng.IntN(100) < percent }

func (c *caller) upTo(d time.Duration) time.Duration { return time.Duration(c.rng.Int64N(int64(d))) }

// An acquisition is one lock from the call to the end.
type acquisition struct {
	*caller
	op    string
	key   string
	ttl   time.Duration
	renew bool
}

func (a *acquisition) add(e history.Event) {
	e.Op, e.Key = a.op, a.key
	a.worker.log.Add(e)
}

// acquire chooses what to do from the caller's seed.
func (c *caller) acquire(op string) {
	a := &acquisition{
		caller: c, op: op,
		key:   c.worker.Keys[c.rng.IntN(len(c.worker.Keys))],
		ttl:   (c.worker.MinTTL + c.upTo(c.worker.MaxTTL-c.worker.MinTTL)).Truncate(time.Millisecond),
		renew: c.chance(15),
	}
	method := "lock"
	switch n := c.rng.IntN(100); {
	case n < 10:
		method = "try"
	case n < 30:
		method = "do"
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if c.chance(20) {
		timer := time.AfterFunc(c.upTo(200*time.Millisecond), func() {
			a.add(history.Event{Kind: history.Cancel})
			cancel()
		})
		defer timer.Stop()
	}
	ctx = ownvalue.With(ctx, op)
	var options []redislock.LockOption
	if a.renew {
		options = append(options, redislock.WithAutoRenew(5*a.ttl))
	}
	a.add(history.Event{Kind: history.Call, Method: method, Manager: c.at, TTL: int64(a.ttl), Renew: a.renew})
	switch method {
	case "lock":
		lock := c.manager.Lock(ctx, a.key, a.ttl, options...)
		if c.chance(5) {
			timer := time.AfterFunc(c.upTo(100*time.Millisecond), func() { a.unlock(lock) })
			defer timer.Stop()
		}
		if result := lock.Wait(); !result.OK() {
			a.failed(result.Err)
			return
		}
		a.use(lock)
	case "try":
		lock, err := c.manager.TryLock(ctx, a.key, a.ttl, options...)
		if err != nil {
			a.failed(err)
			return
		}
		a.use(lock)
	case "do":
		ran := false
		err := c.manager.Do(ctx, a.key, a.ttl, func(ctx context.Context) error {
			ran = true
			lock := redislock.FromContext(ctx)
			a.granted(lock)
			a.hold(lock, ctx.Done())
			a.add(history.Event{Kind: history.Unlock})
			return nil
		}, options...)
		if !ran {
			a.failed(err)
			return
		}
		a.add(history.Event{Kind: history.Unlocked, Err: message(err), Is: history.Sentinels(err)})
	}
}

// use holds the lock and unlocks it, most of the time.
func (a *acquisition) use(lock *redislock.Lock) {
	a.granted(lock)
	a.hold(lock, lock.Done())
	if a.rng.IntN(300) == 0 {
		<-lock.Done() // forgot to unlock: the lease has to end
		return
	}
	a.unlock(lock)
}

func (a *acquisition) failed(err error) {
	a.add(history.Event{Kind: history.Failed, Err: message(err), Is: history.Sentinels(err)})
}

func (a *acquisition) granted(lock *redislock.Lock) {
	valid := history.Monotonic(lock.ValidUntil())
	a.add(history.Event{Kind: history.Granted, Token: lock.Token(), ValidUntil: valid})
	go a.watch(lock, valid)
}

// watch records each prolongation and the end of the lock. It ends with that.
func (a *acquisition) watch(lock *redislock.Lock, valid int64) {
	look := time.NewTicker(a.ttl / 6)
	defer look.Stop()
	for ended := false; !ended; {
		select {
		case <-look.C:
		case <-lock.Done():
			ended = true
		}
		if now := history.Monotonic(lock.ValidUntil()); now > valid {
			valid = now
			a.add(history.Event{Kind: history.Valid, ValidUntil: valid})
		}
	}
	a.add(history.Event{Kind: history.Done, Err: message(lock.Err()), Is: history.Sentinels(lock.Err()), ValidUntil: valid})
}

// hold keeps the lock for a while: mostly for moments, sometimes for long, now
// and then for longer than the lease lasts. done ends when the lock is lost.
func (a *acquisition) hold(lock *redislock.Lock, done <-chan struct{}) {
	hold := a.upTo(2 * time.Millisecond)
	switch n := a.rng.IntN(1000); {
	case n < 5:
		hold = a.ttl + a.upTo(a.ttl)
	case n < 40:
		hold = a.upTo(a.ttl / 4)
	}
	parts := 1 + a.rng.IntN(3)
	for range parts {
		a.write(lock)
		select {
		case <-time.After(hold / time.Duration(parts)):
		case <-done:
		}
		if a.chance(10) {
			a.extend(lock)
		}
	}
}

func (a *acquisition) extend(lock *redislock.Lock) {
	ctx, cancel := context.WithTimeout(context.Background(), a.ttl)
	defer cancel()
	a.add(history.Event{Kind: history.Extend, TTL: int64(a.ttl)})
	err := lock.Extend(ctx, a.ttl)
	a.add(history.Event{
		Kind: history.Extended, Err: message(err), Is: history.Sentinels(err), ValidUntil: history.Monotonic(lock.ValidUntil()),
	})
}

// write uses the lock for what it is for, as long as it says that it is held.
func (a *acquisition) write(lock *redislock.Lock) {
	if lock.Err() != nil {
		return
	}
	a.add(history.Event{Kind: history.Write, Token: lock.Token()})
	accepted, err := a.resource.write(request{Key: a.key, Op: a.op, Token: lock.Token()})
	a.add(history.Event{Kind: history.Written, Token: lock.Token(), Accepted: accepted, Err: message(err)})
}

func (a *acquisition) unlock(lock *redislock.Lock) {
	a.add(history.Event{Kind: history.Unlock})
	err := lock.Unlock()
	a.add(history.Event{Kind: history.Unlocked, Err: message(err), Is: history.Sentinels(err)})
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
