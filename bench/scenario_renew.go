package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// renewTTL is the TTL of locks on auto-renew, each of which is renewed at a third
// of it.
const renewTTL = 30 * time.Second

// renewal holds n locks that renew themselves, and looks what that costs, and
// whether any is lost.
func renewal(n int, quick bool) scenario {
	k := keeping{n: n, watch: renewTTL + renewTTL/3}
	if quick {
		k.watch = renewTTL / 3
	}
	return scenario{
		name: fmt.Sprintf("renew/%d", n), rounds: 1,
		use:   use{processes: 1, callers: n, keys: n, ttl: renewTTL, parked: true},
		limit: k.watch + time.Minute,
		takes: func(c contender) bool {
			// The other one has a goroutine for each lock: 100,000 tell nothing new.
			return c.role == ours || c.name == rueidislockPeer.name && n <= 10_000
		},
		measure: k.measure,
	}
}

type keeping struct {
	n     int
	watch time.Duration
}

// hands is how many goroutines acquire and release the locks to be held.
const hands = 256

func (k keeping) measure(ctx context.Context, b *bench, c contender, peers []peer) (figures, error) {
	keeper, ok := peers[0].(keeper)
	if !ok {
		return nil, errors.New("does not renew")
	}
	held := make([]func() bool, k.n)
	release := make([]func() error, k.n)
	before := inMemory()
	err := inParallel(k.n, func(i int) (err error) {
		held[i], release[i], err = keeper.Keep(ctx, fmt.Sprint("key", i))
		return err
	})
	if err != nil {
		return nil, err
	}
	memory := inMemory().since(before)
	begin, err := b.site.spent()
	if err != nil {
		return nil, err
	}
	time.Sleep(k.watch)
	end, err := b.site.spent()
	if err != nil {
		return nil, err
	}
	lost := 0
	for i := range held {
		if !held[i]() {
			lost++
		}
	}
	gone, err := k.gone(ctx, b, c)
	if err != nil {
		return nil, err
	}
	// Of a lock that was lost, the release fails; that is counted already.
	if err := inParallel(k.n, func(i int) error { return release[i]() }); err != nil && lost == 0 {
		return nil, err
	}
	spent := end.since(begin)
	return figures{
		"lost":            float64(max(lost, gone)),
		"client-cpu-%":    100 * spent.client.Seconds() / spent.wall.Seconds(),
		"server-cpu-%":    100 * spent.server.Seconds() / spent.wall.Seconds(),
		"commands/s":      spent.commands / spent.wall.Seconds(),
		"scripts/s":       spent.scripts / spent.wall.Seconds(),
		"reads/s":         spent.reads / spent.wall.Seconds(),
		"heap-B/lock":     memory.heap / float64(k.n),
		"stack-B/lock":    memory.stack / float64(k.n),
		"goroutines/lock": memory.goroutines / float64(k.n),
	}, nil
}

// gone counts the keys that Redis no longer has.
func (k keeping) gone(ctx context.Context, b *bench, c contender) (int, error) {
	there := 0
	for i := 0; i < k.n; i += 1000 {
		var keys []string
		for j := i; j < min(i+1000, k.n); j++ {
			keys = append(keys, c.inRedis(fmt.Sprint("key", j)))
		}
		n, err := b.site.servers[0].admin.Exists(ctx, keys...).Result()
		if err != nil {
			return 0, err
		}
		there += int(n)
	}
	return k.n - there, nil
}

// inParallel calls f for each i below n, and returns the first error of any hand.
func inParallel(n int, f func(i int) error) error {
	var (
		group sync.WaitGroup
		next  atomic.Int64
		errs  = make([]error, hands)
	)
	for hand := range hands {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && errs[hand] == nil; i = int(next.Add(1)) - 1 {
				errs[hand] = f(i)
			}
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
