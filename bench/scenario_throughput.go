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
		if c.line || c.ring {
			return u.keys == 1 && u.callers > 1 && (u.processes > 1 || !c.ring)
		}
		return !c.uncontended || u.keys > 1 || u.callers == 1
	}
	return scenario{name: name, use: u, limit: 15 * time.Second, takes: takes, measure: measureThroughput}
}

func measureThroughput(ctx context.Context, b *bench, _ contender, peers []peer) (figures, error) {
	return b.work(ctx, newDrive(peers, b.scenario.use), nil)
}

// work has the callers warm up and work. If the scenario has a fault, it comes
// between the two, in each round to another server; struck, if not nil, is called then.
func (b *bench) work(ctx context.Context, d *drive, struck func()) (figures, error) {
	warm, _ := d.run(ctx, b.span/5) // connections, scripts
	if acquired, _, _, err := sum(warm); err != nil || acquired == 0 {
		return nil, cmp.Or(err, errHung)
	}
	runtime.GC()
	if b.scenario.fault != "" {
		if err := b.site.strike(b.scenario.fault, b.struck()); err != nil {
			return nil, err
		}
		d.patience = cmp.Or(b.scenario.patience, patience)
		d.giveUp = func() { _ = b.site.heal() } // what fails is seen by reset
	}
	if struck != nil {
		struck()
	}
	before, err := b.site.spent()
	if err != nil {
		return nil, err
	}
	tallies, took := d.run(ctx, b.span)
	after, err := b.site.spent()
	if err != nil {
		return nil, err
	}
	acquired, acquire, handoff, err := sum(tallies)
	if err != nil {
		return nil, err
	}
	if acquired == 0 && b.scenario.fault == "" {
		return nil, errHung
	}
	n, pair := float64(acquired), pairs(tallies)
	f := figures{
		"pairs/s":        n / took.Seconds(),
		"acquire-p50-us": micros(percentile(acquire, 50)),
		"acquire-p99-us": micros(percentile(acquire, 99)),
		"pair-p50-us":    micros(percentile(pair, 50)),
		"pair-p99-us":    micros(percentile(pair, 99)),
		"pair-max-us":    micros(percentile(pair, 100)),
		"hung":           float64(hung(tallies)),
	}
	if n > 0 && before.asked == after.asked {
		spent := after.since(before)
		f["commands/pair"] = spent.commands / n
		f["reads/pair"] = spent.reads / n
		f["scripts/pair"] = spent.scripts / n
		f["server-us/pair"] = micros(spent.server) / n
		f["client-us/pair"] = micros(spent.client) / n
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

// struck returns which server has the fault in this round.
func (b *bench) struck() int { return b.round % len(b.site.servers) }

func first[A, B any](a A, _ B) A { return a }
