package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// order has callers of several processes come to a key that is held, one by one,
// and looks in which order they are served.
func order() scenario {
	return scenario{
		name: "order", use: use{processes: 8, callers: 64, keys: 1, ttl: ttl},
		limit: 15 * time.Second, takes: queuers, measure: measureOrder,
	}
}

// apart is how far apart they come. A round trip is a tenth of it.
const apart = time.Millisecond

func measureOrder(ctx context.Context, b *bench, _ contender, peers []peer) (figures, error) {
	if err := warmUp(ctx, peers, b.scenario.use); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	release, err := peers[0].Acquire(ctx, "key0")
	if err != nil {
		return nil, err
	}
	var (
		callers sync.WaitGroup
		mu      sync.Mutex // guards what follows
		served  []int      // by number of arrival
		failed  error
	)
	for i := range b.scenario.use.callers {
		time.Sleep(apart)
		callers.Go(func() {
			release, err := peers[i%len(peers)].Acquire(ctx, "key0")
			if err == nil {
				mu.Lock()
				served = append(served, i) // before anybody else can have the key
				mu.Unlock()
				err = release()
			} else if ctx.Err() != nil {
				return // he hung
			}
			mu.Lock()
			failed = errors.Join(failed, err)
			mu.Unlock()
		})
	}
	time.Sleep(20 * time.Millisecond)
	if err := release(); err != nil {
		return nil, err
	}
	callers.Wait()
	if failed != nil {
		return nil, failed
	}
	return figures{
		"out-of-order-%": 100 * inversions(served),
		"overtaken":      float64(overtaken(served)),
		"hung":           float64(b.scenario.use.callers - len(served)),
	}, nil
}

// inversions returns the share of pairs that were served in another order than
// that of their arrival: 0 for first come, first served, 0.5 for chance.
func inversions(served []int) float64 {
	wrong, pairs := 0, 0
	for i := range served {
		for _, later := range served[i+1:] {
			pairs++
			if later < served[i] {
				wrong++
			}
		}
	}
	if pairs == 0 {
		return 0
	}
	return float64(wrong) / float64(pairs)
}

// overtaken returns how many that came later were served before him whom that
// happened to most.
func overtaken(served []int) (most int) {
	for i, who := range served {
		before := 0
		for _, earlier := range served[:i] {
			if earlier > who {
				before++
			}
		}
		most = max(most, before)
	}
	return most
}

// warmUp has 16 callers of each peer work for a moment, on keys of their own and on
// one, so that connections, scripts and subscriptions are there.
func warmUp(ctx context.Context, peers []peer, u use) error {
	u.callers = 16 * len(peers)
	for _, u.keys = range []int{u.callers, 1} {
		if _, _, _, err := sum(first(newDrive(peers, u).run(ctx, 100*time.Millisecond))); err != nil {
			return err
		}
	}
	return nil
}
