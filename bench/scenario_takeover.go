package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// takeOver has callers wait for keys that somebody else has set and will not
// release, with so many other keys with a TTL in the database, and looks how long
// after the end of the lease they have the lock.
func takeOver(others int, quick bool) scenario {
	t := taking{others: others, keys: 20, lease: 100 * time.Millisecond, bound: 10 * time.Second}
	if quick {
		t.bound = 2 * time.Second
	}
	return scenario{
		name: fmt.Sprintf("takeover/%d", others), rounds: 3,
		use:   use{processes: 1, callers: t.keys, keys: t.keys, ttl: ttl},
		limit: t.bound + 20*time.Second, takes: queuers, measure: t.measure,
	}
}

type taking struct {
	others, keys int
	lease, bound time.Duration
}

func (t taking) measure(ctx context.Context, b *bench, c contender, peers []peer) (figures, error) {
	if err := warmUp(ctx, peers, b.scenario.use); err != nil {
		return nil, err
	}
	pipe := b.site.servers[0].admin.Pipeline()
	for i := range t.others {
		pipe.Set(ctx, fmt.Sprint("other", i), "", time.Hour)
	}
	if t.others > 0 {
		if _, err := pipe.Exec(ctx); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, t.bound)
	defer cancel()
	var (
		callers sync.WaitGroup
		late    = make([]time.Duration, t.keys)
		errs    = make([]error, t.keys)
	)
	for i := range t.keys {
		key := fmt.Sprint("dead", i)
		set := time.Now()
		if err := b.site.servers[0].admin.Set(ctx, c.inRedis(key), "a holder that died", t.lease).Err(); err != nil {
			return nil, err
		}
		callers.Go(func() {
			release, err := peers[0].Acquire(ctx, key)
			late[i] = time.Since(set) - t.lease
			if err != nil {
				errs[i] = err
				return
			}
			errs[i] = release()
		})
		time.Sleep(5 * time.Millisecond)
	}
	callers.Wait()
	never := 0
	for _, err := range errs {
		switch {
		case err == nil:
		case ctx.Err() == nil:
			return nil, err
		default: // his time was up
			never++
		}
	}
	if early := slices.Min(late); early < 0 {
		return nil, fmt.Errorf("taken over %v before the lease ended", -early)
	}
	slices.Sort(late)
	return figures{ // who never had it counts with the time he waited
		"late-p50-ms": millis(percentile(late, 50)),
		"late-max-ms": millis(late[len(late)-1]),
		"never-%":     100 * float64(never) / float64(t.keys),
	}, nil
}
