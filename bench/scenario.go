package main

import (
	"context"
	"fmt"
	"regexp"
	"time"
)

// figures are what a measurement found, by name and unit: "pairs/s".
type figures map[string]float64

// A scenario is one thing to measure.
type scenario struct {
	name  string
	on    topology
	fault fault // what befalls one of several servers
	// patience is how long callers may take after all were told to stop; 0: as usual.
	patience time.Duration
	use      use
	rounds   int           // at most; 0: as many as asked for
	limit    time.Duration // after which it counts as hanging, over what it is meant to take
	takes    func(c contender) bool
	// measure has the peers, which are as many as use has processes, to itself.
	measure method
}

type method func(ctx context.Context, b *bench, c contender, peers []peer) (figures, error)

// growth is how many processes share one key to see how the cost grows.
var growth = []int{2, 8, 32, 128}

// ttl is that of all locks where nothing else is said.
const ttl = time.Minute

func scenarios(quick bool) (all []scenario) {
	for _, n := range []int{1, 16, 256} {
		all = append(all, throughput(fmt.Sprintf("uncontended/%d", n), use{processes: 1, callers: n, keys: n}))
	}
	for _, shape := range [][2]int{{1, 64}, {8, 8}, {16, 1}} {
		all = append(all, throughput(fmt.Sprintf("contended/%dx%d", shape[0], shape[1]),
			use{processes: shape[0], callers: shape[0] * shape[1], keys: 1}))
	}
	all = append(all, throughput("keys/64x4", use{processes: 4, callers: 256, keys: 64}))
	for _, n := range growth {
		s := throughput(fmt.Sprintf("processes/%d", n), use{processes: n, callers: n, keys: 1})
		s.rounds = 3
		s.takes = func(c contender) bool { return c.role == ours || c.ring }
		all = append(all, s)
	}
	all = append(all, order())
	for _, n := range []int{1000, 10_000} {
		all = append(all, parked(n, quick))
	}
	for _, n := range []int{0, 10_000, 100_000} {
		all = append(all, takeOver(n, quick))
	}
	all = append(all, renewal(10_000, quick))
	if !quick {
		all = append(all, renewal(100_000, quick))
	}
	return append(all, topologies(quick)...)
}

// chosen returns the scenarios whose name matches.
func chosen(all []scenario, pattern *regexp.Regexp) (some []scenario) {
	for _, s := range all {
		if pattern.MatchString(s.name) {
			some = append(some, s)
		}
	}
	return some
}

// queuers are those whose waiters are of interest.
func queuers(c contender) bool { return c.role == ours || c.role == rival }
