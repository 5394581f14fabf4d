package main

import (
	"fmt"
	"math"
	"slices"
)

// charts are what there is to see.
func (s samples) charts() []chart {
	uncontended := s.chart([]string{"uncontended/1", "uncontended/16", "uncontended/256"}, func(scenario, peer string) (float64, string) {
		us, ratio := s.of(scenario, peer, "pairs/s"), s.ratio(scenario, peer, rawPeer.name, "pairs/s")
		return orNone(ratio), fmt.Sprintf("%.0fk", us.median/1000)
	})
	uncontended.file, uncontended.line = "uncontended.svg", 1
	uncontended.title = "Locks a second, a key each, against SET NX PX by plain go-redis (= 1)"
	uncontended.axis = "times SET NX PX"
	uncontended.groups = []string{"1 goroutine", "16 goroutines", "256 goroutines"}

	shapes := []string{"contended/1x64", "contended/8x8", "contended/16x1"}
	names := []string{"1 process x 64 callers", "8 x 8", "16 x 1"}
	contended := s.chart(shapes, func(scenario, peer string) (float64, string) {
		us := s.of(scenario, peer, "pairs/s")
		return orNone(us), fmt.Sprintf("%.1fk", us.median/1000)
	})
	contended.file, contended.title, contended.axis = "contended.svg", "Locks a second, one key for all", "locks/s"
	contended.groups = names

	scaled := func(figure string, by float64) chart {
		c := s.chart(shapes, func(scenario, peer string) (float64, string) {
			of := s.of(scenario, peer, figure)
			of.median /= by
			return orNone(of), short(of.median)
		})
		c.groups = names
		return c
	}
	fairness := scaled("spread-%", 100)
	fairness.file, fairness.axis = "fairness.svg", "fair shares"
	fairness.title = "Most served caller less least served, in fair shares (0 is fair)"

	waiting := scaled("acquire-p99-us", 1000)
	waiting.file, waiting.axis = "waiting.svg", "ms"
	waiting.title = "How long one in a hundred waits for one key, at least (99th percentile, ms)"

	takeOver := s.chart([]string{"takeover/0", "takeover/10000", "takeover/100000"}, func(scenario, peer string) (float64, string) {
		late := s.of(scenario, peer, "late-p50-ms")
		label := short(late.median)
		if s.of(scenario, peer, "never-%").median > 50 {
			label = "over " + label
		}
		return orNone(late), label
	})
	takeOver.file, takeOver.axis, takeOver.log, takeOver.floor = "takeover.svg", "ms", true, 0.5
	takeOver.title = "How late a dead holder's key is taken over (median, ms)"
	takeOver.groups = []string{"no other keys with a TTL", "10,000 others", "100,000 others"}

	memory := s.chart([]string{"parked/1000", "parked/10000"}, func(scenario, peer string) (float64, string) {
		heap, stack := s.of(scenario, peer, "heap-B/waiter"), s.of(scenario, peer, "stack-B/waiter")
		heap.median += stack.median
		return orNone(heap), short(heap.median)
	})
	memory.file, memory.axis, memory.title = "parked-memory.svg", "bytes", "Memory for each parked waiter (heap and stack, bytes)"
	memory.groups = []string{"1,000 waiters", "10,000 waiters"}

	commands := s.chart([]string{"parked/1000", "parked/10000"}, func(scenario, peer string) (float64, string) {
		rate := s.of(scenario, peer, "commands/s")
		return orNone(rate), short(rate.median)
	})
	commands.file, commands.axis, commands.log, commands.floor = "parked-commands.svg", "commands/s", true, 0.5
	commands.title, commands.groups = "Commands on the server while they are parked", memory.groups
	return []chart{uncontended, contended, fairness, waiting, takeOver, memory, commands}
}

// orNone returns the median, or NaN if nothing was measured.
func orNone(s summary) float64 {
	if s.rounds == 0 {
		return math.NaN()
	}
	return s.median
}

// chart returns the bars of all who took part in the scenarios, if all of these
// were measured.
func (s samples) chart(scenarios []string, bar func(scenario, peer string) (float64, string)) (c chart) {
	for _, scenario := range scenarios {
		if !slices.Contains(s.scenarios(), scenario) {
			return chart{}
		}
	}
	for _, peer := range s.peers("") {
		b, some := bars{library: peer}, false
		for _, scenario := range scenarios {
			value, label := bar(scenario, peer)
			b.values, b.labels = append(b.values, value), append(b.labels, label)
			some = some || !math.IsNaN(value)
		}
		if some {
			c.bars = append(c.bars, b)
		}
	}
	return c
}
