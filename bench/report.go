package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// writeReport puts each part of the report into a page, between its marks. What was
// not measured at all is left as it is.
func (r *results) writeReport(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	page := string(text)
	for _, part := range []struct{ name, text string }{{"bench", r.report()}, {"bench topologies", r.onSeveralServers()}} {
		begin, end := "<!-- "+part.name+" -->\n", "<!-- /"+part.name+" -->\n"
		before, rest, found := strings.Cut(page, begin)
		_, after, found2 := strings.Cut(rest, end)
		switch {
		case part.text == "":
		case !found || !found2:
			return fmt.Errorf("%s lacks the marks %q and %q", path, begin, end)
		default:
			page = before + begin + part.text + end + after
		}
	}
	return os.WriteFile(path, []byte(page), 0o644)
}

// report returns all tables about a single server, in Markdown.
func (r *results) report() string {
	d := r.document(single)
	if len(d.samples) == 0 {
		return ""
	}
	d.targets()
	d.throughput()
	d.latency()
	d.costs()
	d.growth()
	d.fairness()
	d.parked()
	d.takeOver()
	d.renewal()
	d.failures()
	d.settings()
	return d.String()
}

// onSeveralServers returns the tables about quorums and clusters.
func (r *results) onSeveralServers() string {
	d := r.document(quorum, cluster)
	if len(d.samples) == 0 {
		return ""
	}
	d.quorum()
	d.cluster()
	d.failures()
	d.settings()
	return d.String()
}

// document begins one about topologies: it tells of which runs its figures are.
func (r *results) document(on ...topology) *document {
	d := new(document)
	about := func(scenario string) bool { return slices.Contains(on, topologyOf(scenario)) }
	for _, one := range r.Samples {
		if about(one.Scenario) {
			d.samples = append(d.samples, one)
		}
	}
	for _, c := range everywhere() {
		if slices.Contains(on, c.on) {
			d.contenders = append(d.contenders, c)
		}
	}
	var runs []run
	for _, run := range r.runs() {
		run.Scenarios = slices.DeleteFunc(slices.Clone(run.Scenarios), func(scenario string) bool { return !about(scenario) })
		if len(run.Scenarios) > 0 {
			runs = append(runs, run)
		}
	}
	for i, run := range runs {
		which := ""
		if i > 0 {
			which = strings.Join(run.Scenarios, ", ") + ", of a run of their own: "
		}
		d.run(which, run)
	}
	return d
}

// run writes when, where and with what was measured.
func (d *document) run(which string, r run) {
	rounds := 0
	for _, one := range d.samples {
		if slices.Contains(r.Scenarios, one.Scenario) {
			rounds = max(rounds, one.Round+1)
		}
	}
	took := time.Duration(r.Took * float64(time.Second)).Round(time.Second)
	d.text("%s%s, %v in all. Redis %s and client on the same %d cores (%s, %s), %s. Rounds: %d, of %s each; of the longer scenarios fewer.",
		which, r.Date.Format("2 January 2006"), took, r.Redis, r.CPUs, cmp.Or(r.CPU, "unknown CPU"), r.System, r.Go, rounds, r.Span)
	d.text("go-redis %s, redsync %s, bsm/redislock %s, rueidislock %s. Medians of the rounds; in brackets the lowest and the highest.",
		r.Modules["github.com/redis/go-redis/v9"], r.Modules["github.com/go-redsync/redsync/v4"],
		r.Modules["github.com/bsm/redislock"], r.Modules["github.com/redis/rueidis"])
}

// A document is Markdown about samples.
type document struct {
	strings.Builder
	samples    samples
	contenders []contender
}

func (d *document) text(format string, a ...any)  { fmt.Fprintf(d, format+"\n\n", a...) }
func (d *document) title(format string, a ...any) { d.text("### "+format, a...) }

// table writes rows of cells under a head; the first column is text.
func (d *document) table(head []string, rows [][]string) {
	line := func(cells []string) { fmt.Fprintf(d, "| %s |\n", strings.Join(cells, " | ")) }
	line(head)
	rule := make([]string, len(head))
	for i := range rule {
		rule[i] = "---:"
	}
	rule[0] = "---"
	line(rule)
	for _, row := range rows {
		line(row)
	}
	d.WriteByte('\n')
}

// A column shows figures of one scenario.
type column struct {
	head, scenario string
	cell           func(of func(figure string) summary) string
}

// byPeer writes a table with a row for each who took part in any of the columns'
// scenarios.
func (d *document) byPeer(columns ...column) {
	head := []string{""}
	for _, c := range columns {
		head = append(head, c.head)
	}
	var rows [][]string
	for _, peer := range d.samples.peers("") {
		row, took := []string{peer}, false
		if peer == redislockPeer.name {
			row[0] = "**" + peer + "**"
		}
		for _, c := range columns {
			cell := "–"
			for _, one := range d.samples {
				if one.Scenario == c.scenario && one.Peer == peer && one.Failure == "" {
					cell, took = c.cell(func(figure string) summary { return d.samples.of(c.scenario, peer, figure) }), true
					break
				}
			}
			row = append(row, cell)
		}
		if took {
			rows = append(rows, row)
		}
	}
	d.table(head, rows)
}

// shown tells whether any of the scenarios was measured.
func (d *document) shown(prefix string) bool {
	for _, s := range d.samples.scenarios() {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

// median shows the median of a figure, in units of so much.
func median(figure string, unit float64) func(func(string) summary) string {
	return func(of func(string) summary) string { return short(of(figure).median / unit) }
}

// ranged shows the median of a figure, and between what the rounds lay.
func ranged(figure string) func(func(string) summary) string {
	return func(of func(string) summary) string {
		s := of(figure)
		if s.rounds == 1 {
			return short(s.median)
		}
		return fmt.Sprintf("%s (%s–%s)", short(s.median), short(s.least), short(s.most))
	}
}

// several shows several cells as one.
func several(cells ...func(func(string) summary) string) func(func(string) summary) string {
	return func(of func(string) summary) string {
		var parts []string
		for _, cell := range cells {
			parts = append(parts, cell(of))
		}
		return strings.Join(parts, " / ")
	}
}

// short writes a number with about three digits.
func short(n float64) string {
	switch magnitude := math.Abs(n); {
	case magnitude >= 1000:
		return thousands(n)
	case magnitude >= 100, n == math.Trunc(n):
		return strconv.FormatFloat(n, 'f', 0, 64)
	case magnitude >= 10:
		return strconv.FormatFloat(n, 'f', 1, 64)
	default:
		return strconv.FormatFloat(n, 'f', 2, 64)
	}
}

// thousands writes a whole number with commas: 12,345. From 10,000 on it is
// rounded to tens.
func thousands(n float64) string {
	if math.Abs(n) >= 10_000 {
		n = math.Round(n/10) * 10
	}
	text := strconv.FormatFloat(n, 'f', 0, 64)
	digits := strings.TrimPrefix(text, "-")
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	if strings.HasPrefix(text, "-") {
		return "-" + digits
	}
	return digits
}
