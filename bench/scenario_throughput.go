package main

import (
	"cmp"
	"context"
	"runtime"
	"time"
)

// throughput has callers acquire and release as fast as they can, a key each, or
// several callers a key.
func throughput(name string, u use) scenario {
	u.ttl = ttl
	takes := func(c contender) bool {
		if c.ring {
			return u.keys == 1 && u.processes > 1
		}
		return !c.uncontended || u.keys > 1 || u.callers == 1
	}
	return scenario{name: name, use: u, limit: 15 * time.Second, takes: takes, measure: measureThroughput}
}

func measureThroughput(ctx context.Context, b *bench, _ contender, peers []peer) (figures, error) {
	d := newDrive(peers, b.scenario.use)
	warm, _ := d.run(ctx, b.span/5) // connections, scripts
	if acquired, _, _, err := sum(warm); err != nil || acquired == 0 {
		return nil, cmp.Or(err, errHung)
	}
	runtime.GC()
	before, err := b.server.spent()
	if err != nil {
		return nil, err
	}
	tallies, took := d.run(ctx, b.span)
	after, err := b.server.spent()
	if err != nil {
		return nil, err
	}
	acquired, acquire, handoff, err := sum(tallies)
	if err != nil {
		return nil, err
	}
	if acquired == 0 {
		return nil, errHung
	}
	n, spent := float64(acquired), after.since(before)
	f := figures{
		"pairs/s":        n / took.Seconds(),
		"acquire-p50-us": micros(percentile(acquire, 50)),
		"acquire-p99-us": micros(percentile(acquire, 99)),
		"commands/pair":  spent.commands / n,
		"reads/pair":     spent.reads / n,
		"scripts/pair":   spent.scripts / n,
		"server-us/pair": micros(spent.server) / n,
		"client-us/pair": micros(spent.client) / n,
		"hung":           float64(hung(tallies)),
	}
	if b.scenario.use.contended() {
		most, share := spread(tallies)
		f["spread"], f["spread-%"] = float64(most), 100*share
		if len(handoff) > 0 {
			f["handoff-p50-us"] = micros(percentile(handoff, 50))
			f["handoff-p99-us"] = micros(percentile(handoff, 99))
		}
	}
	return f, nil
}

func first[A, B any](a A, _ B) A { return a }
