package main

import (
	"fmt"
	"slices"
)

// A verdict is what became of a target.
type verdict struct {
	target, ours, against, ratio string
	times                        float64 // the ratio
	measured, reached            bool
	remark                       bool // no target, but it belongs beside them
}

// targets tells for each target whether it was reached. Ratios are medians of the
// rounds' ratios.
func (s samples) targets() (all []verdict) {
	all = append(all,
		s.faster("uncontended, 1 goroutine", "uncontended/1", 0.95, rawPeer.name),
		s.limit("uncontended/1", tokenPeer.name, rawPeer.name),
		s.faster("uncontended, 16 goroutines", "uncontended/16", 1.2, s.bestPeer("uncontended/16", rivals())),
		s.beside("uncontended/16", s.bestVariant("uncontended/16"), "which is experimental"),
		s.faster("uncontended, 256 goroutines", "uncontended/256", 1.7, s.bestPeer("uncontended/256", rivals())),
		s.limit("uncontended/256", onAutoPipeline(rawPeer, floor).name, s.bestPeer("uncontended/256", rivals())),
		s.limit("uncontended/256", onAutoPipeline(tokenPeer, floor).name, s.bestPeer("uncontended/256", rivals())),
		s.faster("uncontended, 256 goroutines", "uncontended/256", 0.8, onAutoPipeline(rawPeer, floor).name),
		s.beside("uncontended/256", s.bestVariant("uncontended/256"), "which is experimental"),
		s.faster("one key, 1 manager x 64 callers", "contended/1x64", 1.7, s.bestPeer("contended/1x64", rivals())),
		s.limit("contended/1x64", linePeer.name, s.bestPeer("contended/1x64", rivals())),
		s.limit("contended/1x64", scriptsPeer.name, s.bestPeer("contended/1x64", rivals())),
		s.atMost("one key, 1x64: most served less least served", "contended/1x64", "spread", 2, "", "at most 2"),
		s.faster("one key, 8 managers x 8 callers", "contended/8x8", 3, s.bestPeer("contended/8x8", rivals())),
		s.limit("contended/8x8", linePeer.name, s.bestPeer("contended/8x8", rivals())),
		s.limit("contended/8x8", scriptsPeer.name, s.bestPeer("contended/8x8", rivals())),
		s.faster("one key, 16 managers x 1 caller", "contended/16x1", 1.2, s.bestPeer("contended/16x1", pollers())),
		s.limit("contended/16x1", linePeer.name, s.bestPeer("contended/16x1", pollers())),
		s.limit("contended/16x1", scriptsPeer.name, s.bestPeer("contended/16x1", pollers())),
		s.faster("one key, 16 managers x 1 caller", "contended/16x1", 2.5, rueidislockPeer.name),
		s.limit("contended/16x1", linePeer.name, rueidislockPeer.name),
		s.limit("contended/16x1", scriptsPeer.name, rueidislockPeer.name),
	)
	for _, shape := range []string{"1x64", "8x8", "16x1"} {
		all = append(all, s.atMost("one key, "+shape+": network reads on the server for each lock", "contended/"+shape, "reads/pair", 2.049, "", "at most 2.0"))
	}
	for _, n := range []int{1000, 10_000} {
		name := fmt.Sprintf("%s parked waiters: ", thousands(float64(n)))
		scenario := fmt.Sprintf("parked/%d", n)
		all = append(all,
			s.atMost(name+"heap for each", scenario, "heap-B/waiter", 1023, " B", "under 1,024 B"),
			s.atMost(name+"goroutines of the library for each", scenario, "goroutines/waiter", 0.01, "", "none"),
			s.atMost(name+"commands in a TTL for each manager", scenario, "commands/manager/TTL", 20, "", "at most 20, however many wait"),
		)
	}
	all = append(all, s.atLeast("10,000 parked waiters: served a second", "parked/10000", "drained/s", 10_000))
	for _, n := range []int{0, 10_000, 100_000} {
		all = append(all, s.atMost(fmt.Sprintf("take-over after expiry, %s other keys: worst", thousands(float64(n))),
			fmt.Sprintf("takeover/%d", n), "late-max-ms", 20, " ms", "at most 20 ms"))
	}
	return append(all,
		s.atMost("100,000 locks on auto-renew: client, of one core", "renew/100000", "client-cpu-%", 14.99, " %", "under 15 %"),
		s.atMost("100,000 locks on auto-renew: server, of one core", "renew/100000", "server-cpu-%", 14.99, " %", "under 15 %"),
		s.atMost("100,000 locks on auto-renew: lost", "renew/100000", "lost", 0, "", "none"),
	)
}

// faster wants ours to acquire so many times as often as another.
func (s samples) faster(target, scenario string, times float64, other string) verdict {
	v := s.compare(scenario, redislockPeer.name, other)
	v.target = fmt.Sprintf("%s: %g of %s", target, times, other)
	if times > 1 {
		v.target = fmt.Sprintf("%s: %g times %s", target, times, other)
	}
	v.reached = v.measured && v.times >= times
	return v
}

// compare tells how many times as often as another one acquired.
func (s samples) compare(scenario, who, other string) (v verdict) {
	us, them := s.of(scenario, who, "pairs/s"), s.of(scenario, other, "pairs/s")
	ratio := s.ratio(scenario, who, other, "pairs/s")
	if ratio.rounds == 0 {
		return v
	}
	v.ours, v.against = thousands(us.median)+"/s", thousands(them.median)+"/s"
	v.ratio = hundredths(ratio.median)
	if ratio.rounds > 1 {
		v.ratio += fmt.Sprintf(" (%s–%s)", hundredths(ratio.least), hundredths(ratio.most))
	}
	v.measured, v.times = true, ratio.median
	return v
}

// hundredths writes a ratio.
func hundredths(ratio float64) string {
	if ratio >= 10 {
		return short(ratio)
	}
	return fmt.Sprintf("%.2f", ratio)
}

// beside compares with one of which no target speaks.
func (s samples) beside(scenario, other, what string) verdict {
	v := s.compare(scenario, redislockPeer.name, other)
	v.target, v.remark = "– beside "+other+", "+what, true
	return v
}

// limit tells what a floor reaches of that with which the target above compares.
func (s samples) limit(scenario, floor, other string) verdict {
	v := s.compare(scenario, floor, other)
	v.target, v.remark = "– what "+floor+" reaches of that", true
	return v
}

// bestVariant returns which peer was best on AutoPipeline.
func (s samples) bestVariant(scenario string) string {
	return s.bestPeer(scenario, named(func(c contender) bool { return c.role == variant }))
}

func (s samples) atMost(target, scenario, figure string, limit float64, unit, said string) verdict {
	got := s.of(scenario, redislockPeer.name, figure)
	v := verdict{target: target, against: said}
	if got.rounds > 0 {
		v.ours, v.measured, v.reached = short(got.median)+unit, true, got.median <= limit
	}
	return v
}

func (s samples) atLeast(target, scenario, figure string, limit float64) verdict {
	v := s.atMost(target, scenario, figure, limit, "", "at least "+short(limit))
	v.reached = v.measured && s.of(scenario, redislockPeer.name, figure).median >= limit
	return v
}

// bestPeer returns who of the named acquired most often.
func (s samples) bestPeer(scenario string, names []string) string {
	if best := s.best(scenario, "pairs/s", names...); best != "" {
		return best
	}
	return "the best peer"
}

func rivals() []string { return named(func(c contender) bool { return c.role == rival }) }

func pollers() []string {
	return named(func(c contender) bool { return c.role == rival && c.polling })
}

func named(is func(contender) bool) (names []string) {
	for _, c := range slices.DeleteFunc(contenders(), func(c contender) bool { return !is(c) }) {
		names = append(names, c.name)
	}
	return names
}
