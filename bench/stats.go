package main

import (
	"slices"
	"time"
)

// percentile returns the p-th percentile of sorted durations, 0 for none.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)*p/100, len(sorted)-1)]
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// A summary is what the rounds of one figure come to.
type summary struct {
	median, least, most float64
	rounds              int
}

// summarize returns the median and the bounds of the values.
func summarize(values []float64) summary {
	if len(values) == 0 {
		return summary{}
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return summary{median, sorted[0], sorted[len(sorted)-1], len(sorted)}
}

// samples are all that was measured.
type samples []sample

// of returns what the rounds of a scenario found of a peer's figure.
func (s samples) of(scenario, peer, figure string) summary {
	var values []float64
	for _, one := range s {
		if value, ok := one.Figures[figure]; ok && one.Scenario == scenario && one.Peer == peer && one.Failure == "" {
			values = append(values, value)
		}
	}
	return summarize(values)
}

// ratio returns how the figures of two peers compare, a to b, round by round: what
// disturbs a round disturbs both.
func (s samples) ratio(scenario, a, b, figure string) summary {
	of := func(peer string) map[int]float64 {
		values := make(map[int]float64)
		for _, one := range s {
			if value, ok := one.Figures[figure]; ok && one.Scenario == scenario && one.Peer == peer && one.Failure == "" {
				values[one.Round] = value
			}
		}
		return values
	}
	var ratios []float64
	others := of(b)
	for round, value := range of(a) {
		if other := others[round]; other != 0 {
			ratios = append(ratios, value/other)
		}
	}
	return summarize(ratios)
}

// failure returns what went wrong with a peer in a scenario, if anything did.
func (s samples) failure(scenario, peer string) string {
	for _, one := range s {
		if one.Scenario == scenario && one.Peer == peer && one.Failure != "" {
			return one.Failure
		}
	}
	return ""
}

// best returns the peer with the highest median of a figure.
func (s samples) best(scenario, figure string, peers ...string) string {
	best := ""
	for _, peer := range peers {
		if s.of(scenario, peer, figure).median > s.of(scenario, best, figure).median {
			best = peer
		}
	}
	return best
}

// scenarios returns the names of what was measured, in order.
func (s samples) scenarios() (names []string) {
	for _, one := range s {
		if !slices.Contains(names, one.Scenario) {
			names = append(names, one.Scenario)
		}
	}
	return names
}

// peers returns the names of who took part in a scenario, or in any if it is "".
func (s samples) peers(scenario string) (names []string) {
	for _, one := range s {
		if (scenario == "" || one.Scenario == scenario) && !slices.Contains(names, one.Peer) {
			names = append(names, one.Peer)
		}
	}
	return names
}
