package main

import (
	"fmt"
	"slices"
	"strings"
)

func (d *document) quorum() {
	if !d.shown("quorum") {
		return
	}
	d.title("A quorum of three servers")
	d.block("A lock is held on two of three redis-servers at least. One of them hangs (SIGSTOP) or has been killed from the beginning of the "+
		"measurement on, in each round another. Acquire and release by 1 goroutine, in milliseconds: median / 99th percentile / longest.",
		column{"all up", "quorum/1", lasting}, column{"one hung", "quorum/1-hung", lasting}, column{"one killed", "quorum/1-killed", lasting},
	)
	d.block("Locks a second, with a key for each goroutine.",
		column{"1 goroutine", "quorum/1", ranged("pairs/s")},
		column{"one hung", "quorum/1-hung", ranged("pairs/s")},
		column{"one killed", "quorum/1-killed", ranged("pairs/s")},
		column{"16 goroutines", "quorum/16", ranged("pairs/s")},
		column{"one hung", "quorum/16-hung", ranged("pairs/s")},
		column{"one killed", "quorum/16-killed", ranged("pairs/s")},
	)
	d.block("One key for 4 managers of 4 callers each, all servers up. Acquire and handoff in milliseconds, median / 99th percentile. "+theSpread,
		column{"locks a second", "quorum/4x4", ranged("pairs/s")}, column{"acquire", "quorum/4x4", acquiring},
		column{"handoff", "quorum/4x4", handing}, column{"spread", "quorum/4x4", spreading},
	)
	d.block("What a lock costs, all servers together: commands, those inside scripts included / network reads / microseconds of CPU of the servers / of the client.",
		column{"1 goroutine", "quorum/1", costing}, column{"16 goroutines", "quorum/16", costing}, column{"4x4", "quorum/4x4", costing},
	)
	d.ratios("quorum/")
}

// theSpread explains a cell.
const theSpread = "The spread is how much more often than the least served caller the most served one had the key, and that in percent of an equal share."

func (d *document) cluster() {
	if !d.shown("cluster") {
		return
	}
	d.title("A cluster of three masters")
	d.block("Locks a second, with a key for each goroutine, keys of all masters. In the last column one master hangs, 16 goroutines work with keys of "+
		"the other two, and 16 more ask for keys of the one that hangs.",
		column{"1 goroutine", "cluster/1", ranged("pairs/s")},
		column{"16 goroutines", "cluster/16", ranged("pairs/s")},
		column{"256 goroutines", "cluster/256", ranged("pairs/s")},
		column{"16, one master hung", "cluster/16-hung", ranged("pairs/s")},
	)
	d.block("Acquire and release, in milliseconds: median / 99th percentile / longest.",
		column{"1 goroutine", "cluster/1", lasting}, column{"16 goroutines", "cluster/16", lasting},
		column{"256 goroutines", "cluster/256", lasting}, column{"16, one master hung", "cluster/16-hung", lasting},
	)
	d.block("Locks a second, managers x callers of each, on one key, and on 8 keys with 8 callers each. "+theSpread,
		column{"1x64", "cluster/1x64", ranged("pairs/s")}, column{"spread", "cluster/1x64", spreading},
		column{"8x8", "cluster/8x8", ranged("pairs/s")}, column{"spread", "cluster/8x8", spreading},
		column{"8x8, 8 keys", "cluster/8x8-8keys", ranged("pairs/s")}, column{"spread", "cluster/8x8-8keys", spreading},
	)
	d.block("What a lock costs, all masters together: commands, those inside scripts included / network reads / microseconds of CPU of the servers / of the client.",
		column{"1 goroutine", "cluster/1", costing}, column{"256 goroutines", "cluster/256", costing},
		column{"1x64", "cluster/1x64", costing}, column{"8x8", "cluster/8x8", costing},
	)
	d.ratios("cluster/")
}

// block writes a text and its table, if any of that was measured.
func (d *document) block(text string, columns ...column) {
	for _, c := range columns {
		if slices.Contains(d.samples.scenarios(), c.scenario) {
			d.WriteString(text + "\n\n")
			d.byPeer(columns...)
			return
		}
	}
}

// What the cells of several tables show.
var (
	acquiring = several(median("acquire-p50-us", 1000), median("acquire-p99-us", 1000))
	handing   = several(median("handoff-p50-us", 1000), median("handoff-p99-us", 1000))
	costing   = several(median("commands/pair", 1), median("reads/pair", 1), median("server-us/pair", 1), median("client-us/pair", 1))
)

// lasting shows how long acquire and release took. Where a caller was not done, it
// is how long he was given.
func lasting(of func(string) summary) string {
	longest := short(of("pair-max-us").median / 1000)
	switch {
	case of("pairs/s").median == 0:
		return "none done in " + longest
	case of("hung").median > 0:
		longest = "over " + longest
	}
	return several(median("pair-p50-us", 1000), median("pair-p99-us", 1000))(of) + " / " + longest
}

func spreading(of func(string) summary) string {
	return fmt.Sprintf("%s (%s %%)", short(of("spread").median), short(of("spread-%").median))
}

// ratios compares ours with the best peer and with the floor, in each of the
// scenarios.
func (d *document) ratios(prefix string) {
	var rows [][]string
	for _, scenario := range d.samples.scenarios() {
		if !strings.HasPrefix(scenario, prefix) {
			continue
		}
		for _, role := range []role{rival, floor} {
			var names []string
			for _, c := range d.contenders {
				if c.role == role && c.on == topologyOf(scenario) {
					names = append(names, c.name)
				}
			}
			other := d.samples.best(scenario, "pairs/s", names...)
			if v := d.samples.faster("", scenario, 1, other); other != "" && v.measured {
				rows = append(rows, []string{scenario, other, v.ours, v.against, v.ratio})
			}
		}
	}
	d.text("Ours beside the best of the others, and the floor: locks a second, and the ratio, the median of the rounds'.")
	d.table([]string{"", "beside", "ours", "theirs", "ratio"}, rows)
}
