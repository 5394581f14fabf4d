package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// topologies are what is measured where there is more than one server.
func topologies(quick bool) (all []scenario) {
	shape := func(on topology, name string, u use) {
		s := throughput(name, u)
		s.on, s.rounds = on, 3
		s.takes = func(c contender) bool { return !c.slow }
		all = append(all, s)
	}
	faulty := func(on topology, name string, f fault, u use, m method) {
		shape(on, fmt.Sprint(name, "-", f), u)
		s := &all[len(all)-1]
		s.fault, s.limit, s.measure = f, 30*time.Second, m
		s.takes = func(c contender) bool { return !c.slow || u.callers == 1 && !quick }
		switch {
		case quick:
			s.patience = 500 * time.Millisecond
		case u.callers == 1:
			s.patience = 3 * time.Second // for those that are slow
		}
	}
	for _, n := range []int{1, 16} {
		name, u := fmt.Sprint("quorum/", n), use{processes: 1, callers: n, keys: n}
		shape(quorum, name, u)
		faulty(quorum, name, frozen, u, measureThroughput)
		faulty(quorum, name, killed, u, measureThroughput)
	}
	shape(quorum, "quorum/4x4", use{processes: 4, callers: 16, keys: 1})

	for _, n := range []int{1, 16, 256} {
		shape(cluster, fmt.Sprint("cluster/", n), use{processes: 1, callers: n, keys: n})
	}
	faulty(cluster, "cluster/16", frozen, use{processes: 1, callers: 16, keys: 16}, measureBesideFrozen)
	shape(cluster, "cluster/1x64", use{processes: 1, callers: 64, keys: 1})
	shape(cluster, "cluster/8x8", use{processes: 8, callers: 64, keys: 1})
	shape(cluster, "cluster/8x8-8keys", use{processes: 8, callers: 64, keys: 8})
	return all
}

// measureBesideFrozen has callers work with keys of the masters of a cluster that
// are well, while as many others ask for keys of the one that is not.
func measureBesideFrozen(ctx context.Context, b *bench, c contender, peers []peer) (figures, error) {
	u := b.scenario.use
	d := newDrive(peers, u)
	d.names = d.names[:0]
	var theirs []string
	for i := 0; len(d.names) < u.keys || len(theirs) < u.keys; i++ {
		key := fmt.Sprint("key", i)
		on, err := b.site.serves(ctx, c.inRedis(key))
		switch {
		case err != nil:
			return nil, err
		case on == b.struck():
			theirs = append(theirs, key)
		default:
			d.names = append(d.names, key)
		}
	}
	asking, cancel := context.WithCancel(ctx)
	var askers sync.WaitGroup
	f, err := b.work(ctx, d, func() {
		for i, key := range theirs[:u.keys] {
			askers.Go(func() {
				if release, err := peers[i%len(peers)].Acquire(asking, key); err == nil {
					_ = release() // nobody counts it
				}
			})
		}
	})
	cancel()
	err = errors.Join(err, b.site.heal()) // some cannot be called away from a server that hangs
	askers.Wait()
	return f, err
}

// serves returns which of a cluster's masters has the key.
func (s *site) serves(ctx context.Context, key string) (int, error) {
	slot, err := s.servers[0].admin.ClusterKeySlot(ctx, key).Result()
	if err != nil {
		return 0, err
	}
	owner, err := s.formed.Owner(int(slot))
	if err != nil {
		return 0, err
	}
	for i, one := range s.servers {
		if one.Server == owner {
			return i, nil
		}
	}
	return 0, fmt.Errorf("slot %d is served by %s, which is none of the cluster", slot, owner.Addr)
}
