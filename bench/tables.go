package main

import (
	"fmt"
	"slices"
	"strings"
)

// targets says which targets were reached.
func (d *document) targets() {
	var rows [][]string
	for _, v := range d.samples.targets() {
		reached := "**no**"
		switch {
		case !v.measured:
			reached = "not measured"
		case v.remark:
			reached = ""
		case v.reached:
			reached = "yes"
		}
		rows = append(rows, []string{v.target, v.ours, v.against, v.ratio, reached})
	}
	d.title("Targets")
	d.table([]string{"target", "ours", "against", "ratio", "reached"}, rows)
}

func (d *document) throughput() {
	if d.shown("uncontended") || d.shown("keys") {
		d.title("Locks a second, uncontended")
		d.text("Each goroutine acquires and releases a key of its own; in the last column 256 callers in 4 processes share 64 keys.")
		d.byPeer(
			column{"1 goroutine", "uncontended/1", ranged("pairs/s")},
			column{"16 goroutines", "uncontended/16", ranged("pairs/s")},
			column{"256 goroutines", "uncontended/256", ranged("pairs/s")},
			column{"64 keys, 4 callers each", "keys/64x4", ranged("pairs/s")},
		)
	}
	if d.shown("contended") {
		d.title("Locks a second, one key")
		d.text("Managers x callers of each. A library that lets who has just released the key take it again is fast here, and unfair: see below.")
		d.byPeer(
			column{"1x64", "contended/1x64", ranged("pairs/s")},
			column{"8x8", "contended/8x8", ranged("pairs/s")},
			column{"16x1", "contended/16x1", ranged("pairs/s")},
		)
	}
}

func (d *document) latency() {
	if d.shown("uncontended") {
		d.title("How long an acquire takes, uncontended")
		d.text("Microseconds, median / 99th percentile.")
		cell := several(median("acquire-p50-us", 1), median("acquire-p99-us", 1))
		d.byPeer(
			column{"1 goroutine", "uncontended/1", cell},
			column{"16 goroutines", "uncontended/16", cell},
			column{"256 goroutines", "uncontended/256", cell},
		)
	}
	if d.shown("contended") {
		d.title("How long it takes on one key")
		d.text("Milliseconds, median / 99th percentile: of acquire, and of handoff, from the beginning of a release until one who waits has the lock.")
		d.byPeer(
			column{"acquire, 1x64", "contended/1x64", acquiring}, column{"handoff", "contended/1x64", handing},
			column{"acquire, 8x8", "contended/8x8", acquiring}, column{"handoff", "contended/8x8", handing},
			column{"acquire, 16x1", "contended/16x1", acquiring}, column{"handoff", "contended/16x1", handing},
		)
	}
}

func (d *document) costs() {
	if !d.shown("uncontended") && !d.shown("contended") {
		return
	}
	d.title("What a lock costs")
	d.text("For each acquire and release: commands on the server, those inside scripts included / network reads of the server / " +
		"microseconds of CPU of the server / of the client.")
	d.byPeer(
		column{"1 goroutine", "uncontended/1", costing}, column{"256 goroutines", "uncontended/256", costing},
		column{"one key, 1x64", "contended/1x64", costing}, column{"8x8", "contended/8x8", costing}, column{"16x1", "contended/16x1", costing},
	)
}

func (d *document) growth() {
	if !d.shown("processes") {
		return
	}
	d.title("One key, more and more processes")
	d.text("Processes of 1 caller each, all in line for one key. For each lock: locks a second / commands on the server / network reads of the " +
		"server / microseconds of CPU of the server / of the client.")
	cell := several(median("pairs/s", 1), costing)
	var columns []column
	for _, n := range growth {
		columns = append(columns, column{fmt.Sprint(n), fmt.Sprintf("processes/%d", n), cell})
	}
	d.byPeer(columns...)
}

func (d *document) fairness() {
	if !d.shown("contended") && !d.shown("order") {
		return
	}
	d.title("Fairness")
	d.text("How much more often than the least served caller the most served one had the key, and that in percent of what each would " +
		"have had equally. Then 64 callers of 8 processes who come to a held key one by one, a millisecond apart: the share of pairs that were served in " +
		"another order (50 %% is chance), and by how many later ones somebody was overtaken.")
	d.byPeer(
		column{"1x64", "contended/1x64", spreading}, column{"8x8", "contended/8x8", spreading}, column{"16x1", "contended/16x1", spreading},
		column{"out of order, %", "order", median("out-of-order-%", 1)}, column{"overtaken by", "order", median("overtaken", 1)},
	)
}

func (d *document) parked() {
	for _, n := range []int{1000, 10_000} {
		scenario := fmt.Sprintf("parked/%d", n)
		if !slices.Contains(d.samples.scenarios(), scenario) {
			continue
		}
		d.title("%s parked waiters", thousands(float64(n)))
		d.text("Over 4 processes, for one key, with a TTL of 5 s. Memory and goroutines are for each waiter; " +
			"commands are counted on the server for as long as a TTL. Then the key is released, and each who gets it releases it at once.")
		d.byPeer(
			column{"heap, B", scenario, median("heap-B/waiter", 1)},
			column{"stack, B", scenario, median("stack-B/waiter", 1)},
			column{"goroutines", scenario, median("goroutines/waiter", 1)},
			column{"commands/s", scenario, median("commands/s", 1)},
			column{"CPU of server / client, %", scenario, several(median("server-cpu-%", 1), median("client-cpu-%", 1))},
			column{"served a second", scenario, ranged("drained/s")},
			column{"served in time, %", scenario, median("drained-%", 1)},
		)
	}
}

func (d *document) takeOver() {
	if !d.shown("takeover") {
		return
	}
	d.title("Take-over of a dead holder's key")
	d.text("Milliseconds after the end of the lease, median / worst of 20, with so many other keys with a TTL in the database. " +
		"Who did not get it within the time given is counted with that time.")
	cell := func(of func(string) summary) string {
		text := several(median("late-p50-ms", 1), median("late-max-ms", 1))(of)
		if never := of("never-%").median; never > 0 {
			text += fmt.Sprintf(", %s %% never", short(never))
		}
		return text
	}
	d.byPeer(
		column{"no others", "takeover/0", cell}, column{"10,000", "takeover/10000", cell}, column{"100,000", "takeover/100000", cell},
	)
}

func (d *document) renewal() {
	for _, n := range []int{10_000, 100_000} {
		scenario := fmt.Sprintf("renew/%d", n)
		if !slices.Contains(d.samples.scenarios(), scenario) {
			continue
		}
		d.title("%s held locks on auto-renew", thousands(float64(n)))
		d.text("TTL 30 s, renewed every 10 s. CPU in percent of one core.")
		d.byPeer(
			column{"lost", scenario, median("lost", 1)},
			column{"CPU of client, %", scenario, median("client-cpu-%", 1)},
			column{"CPU of server, %", scenario, median("server-cpu-%", 1)},
			column{"commands/s", scenario, median("commands/s", 1)},
			column{"network reads/s", scenario, median("reads/s", 1)},
			column{"heap for each, B", scenario, median("heap-B/lock", 1)},
			column{"stack, B", scenario, median("stack-B/lock", 1)},
			column{"goroutines", scenario, median("goroutines/lock", 1)},
		)
	}
}

// failures says what went wrong, in which rounds.
func (d *document) failures() {
	var rows [][]string
	for _, one := range d.samples {
		trouble := strings.ReplaceAll(one.Failure, "\n", "; ")
		if n := one.Figures["hung"]; n > 0 && trouble == "" {
			trouble = fmt.Sprintf("%v of the callers still waited seconds after all others had gone", n)
			if faultOf(one.Scenario) == "" {
				trouble += ", for a key that nobody held"
			}
		}
		if trouble != "" {
			rows = append(rows, []string{one.Scenario, one.Peer, fmt.Sprint(one.Round + 1), trouble})
		}
	}
	if rows != nil {
		d.title("What went wrong")
		for _, row := range rows {
			fmt.Fprintf(d, "- %s, %s, round %s: %s\n", row[0], row[1], row[2], row[3])
		}
		d.WriteByte('\n')
	}
}

// settings says with which settings everybody took part, and why.
func (d *document) settings() {
	d.title("Settings")
	var texts []string
	users := make(map[string][]string) // by text
	for _, peer := range d.samples.peers("") {
		var all []string
		by := make(map[string][]string)
		for _, one := range d.samples {
			if one.Peer == peer && !slices.Contains(by[one.Settings], one.Scenario) {
				if by[one.Settings] == nil {
					all = append(all, one.Settings)
				}
				by[one.Settings] = append(by[one.Settings], one.Scenario)
			}
		}
		text := ""
		for _, settings := range all {
			if text != "" {
				text += "; "
			}
			text += settings
			if len(all) > 1 {
				text += " (" + kinds(by[settings]) + ")"
			}
		}
		text += ". " + d.why(peer)
		if users[text] == nil {
			texts = append(texts, text)
		}
		users[text] = append(users[text], peer)
	}
	for _, text := range texts {
		fmt.Fprintf(d, "- **%s**: %s\n", strings.Join(users[text], "; "), text)
	}
	d.WriteByte('\n')
}

// kinds returns the scenarios' names, each once, those on a single server without
// what is behind the slash.
func kinds(scenarios []string) string {
	var names []string
	for _, s := range scenarios {
		name := s
		if topologyOf(s) == single {
			name, _, _ = strings.Cut(s, "/")
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

func (d *document) why(peer string) string {
	for _, c := range d.contenders {
		if c.name == peer {
			return c.why
		}
	}
	return ""
}
