package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/redislock/redislock/test/check"
	"github.com/redislock/redislock/test/page"
)

// A row is what came of one episode.
type row struct {
	fault    fault
	injected map[string]int // by kind
	report   check.Report
	broken   []string
	lost     int // of what a master that died had written, entries that its replica had not
}

// add adds what was found about some keys.
func (r *row) add(report check.Report, lost int) {
	r.lost += lost
	r.report.Operations += report.Operations
	r.report.Grants += report.Grants
	r.report.Entries += report.Entries
	r.report.Examined = append(r.report.Examined, report.Examined...)
	r.report.Violations = append(r.report.Violations, report.Violations...)
	r.report.LeftOut += report.LeftOut
	r.report.Unknown = append(r.report.Unknown, report.Unknown...)
}

func (r row) losses() string {
	if r.lost == 0 {
		return ""
	}
	return fmt.Sprintf(", %d writes lost with a master", r.lost)
}

// judged are the guarantees that a history can break.
var judged = []string{"G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10"}

// count tells how many faults were injected.
func (r row) count() (n int) {
	for _, kind := range r.injected {
		n += kind
	}
	return n
}

// failures counts what went wrong in the episode.
func (r row) failures() int {
	return len(r.report.Violations) + r.report.LeftOut + len(r.report.Unknown) + len(r.broken)
}

// cell tells how often a guarantee was put to the test, and how often it was found
// broken.
func (r row) cell(guarantee string) string {
	broken := 0
	for _, v := range r.report.Violations {
		if v.Guarantee == guarantee {
			broken++
		}
	}
	facts := fmt.Sprint(r.report.Facts(guarantee))
	if broken > 0 {
		return fmt.Sprintf("**%d of %s**", broken, facts)
	}
	return facts
}

// table writes the rows in Markdown.
func table(rows []row) string {
	var b strings.Builder
	line := func(cells ...string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(append([]string{"fault", "injected", "calls", "acquired"}, append(slices.Clone(judged), "violations")...)...)
	line(append([]string{"---"}, slices.Repeat([]string{"---:"}, 4+len(judged))...)...)
	total := row{fault: fault{name: "**all**"}, injected: make(map[string]int)}
	for _, r := range append(rows, total) {
		if r.fault.name == total.fault.name {
			r = total
		} else {
			total.injected["all"] += r.count()
			total.add(r.report, r.lost)
			total.broken = append(total.broken, r.broken...)
		}
		name := r.fault.name
		if r.fault.second != (check.SecondClass{}) {
			name += " ²"
		}
		cells := []string{name, fmt.Sprint(r.count()), fmt.Sprint(r.report.Operations), fmt.Sprint(r.report.Grants)}
		for _, guarantee := range judged {
			cells = append(cells, r.cell(guarantee))
		}
		line(append(cells, fmt.Sprint(r.failures()))...)
	}
	return b.String()
}

// writeReport puts the table into the page, between its marks.
func writeReport(path string, rows []row, seed uint64, took time.Duration) error {
	version, err := exec.Command("redis-server", "--version").Output()
	if err != nil {
		return err
	}
	server := "Redis"
	if _, v, ok := strings.Cut(string(version), "v="); ok {
		server += " " + strings.Fields(v)[0]
	}
	summary := fmt.Sprintf("Seed %d, %v in all, %s, %s with the race detector, %d cores.\n\n",
		seed, took.Round(time.Second), server, runtime.Version(), runtime.NumCPU())
	return page.Write(path, "make chaos", summary+table(rows)+"\n"+times(rows))
}

// writeResults writes what came of each episode, for other programs.
func writeResults(path string, rows []row) error {
	type result struct {
		Fault, On                         string
		Calls, Acquired, Lost, Violations int
		Injected                          map[string]int // by kind
	}
	var all []result
	for _, r := range rows {
		all = append(all, result{
			r.fault.name, r.fault.on, r.report.Operations, r.report.Grants, r.lost, r.failures(), r.injected,
		})
	}
	text, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

// times lists what was injected, by kind.
func times(rows []row) string {
	kinds := make(map[string]int)
	for _, r := range rows {
		for name, n := range r.injected {
			kinds[name] += n
		}
	}
	names := make([]string, 0, len(kinds))
	for name := range kinds {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(kinds[b]-kinds[a], cmp.Compare(a, b)) })
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, kinds[name])
	}
	return "Injected: " + strings.Join(names, ", ") + ".\n"
}
