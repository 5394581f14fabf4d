package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// Results are what a run found.
type results struct {
	run
	Added   []run   `json:"added,omitempty"` // later ones, of some of the scenarios: see merge
	Samples samples `json:"samples"`
}

// A run is what one has to know of it to repeat it.
type run struct {
	Date       time.Time         `json:"date"`
	Took       float64           `json:"took_s"`
	Flags      []string          `json:"flags"`
	Rounds     int               `json:"rounds"`
	Span       string            `json:"span"`
	Go         string            `json:"go"`
	System     string            `json:"system"`
	CPU        string            `json:"cpu"`
	CPUs       int               `json:"cpus"`
	GOMAXPROCS int               `json:"gomaxprocs"`
	Redis      string            `json:"redis"`
	Modules    map[string]string `json:"modules"`
	Scenarios  []string          `json:"scenarios,omitempty"` // of a run that was added
}

// compared are the modules whose versions a reader wants to know.
var compared = []string{
	"github.com/redis/go-redis/v9", "github.com/go-redsync/redsync/v4", "github.com/bsm/redislock", "github.com/redis/rueidis",
}

func newResults() *results {
	r := &results{run: run{
		Date: time.Now().UTC().Truncate(time.Second), Flags: os.Args[1:],
		Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, CPU: cpuModel(),
		CPUs: runtime.NumCPU(), GOMAXPROCS: runtime.GOMAXPROCS(0),
		Modules: make(map[string]string),
	}}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if slices.Contains(compared, module.Path) {
				r.Modules[module.Path] = module.Version
			}
		}
	}
	return r
}

// cpuModel returns what Linux calls the CPU, or "".
func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// readResults reads the results of an earlier run.
func readResults(path string) (*results, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(results)
	return r, json.Unmarshal(text, r)
}

// merge returns earlier results with the scenarios of this run in place of theirs.
// Figures of one scenario are always of one run.
func (r *results) merge(earlier *results) *results {
	mine := r.Samples.scenarios()
	replaced := func(scenario string) bool { return slices.Contains(mine, scenario) }
	all := &results{run: earlier.run}
	for _, one := range earlier.Samples {
		if !replaced(one.Scenario) {
			all.Samples = append(all.Samples, one)
		}
	}
	for _, one := range earlier.Added {
		one.Scenarios = slices.DeleteFunc(slices.Clone(one.Scenarios), replaced)
		if len(one.Scenarios) > 0 {
			all.Added = append(all.Added, one)
		}
	}
	added := r.run
	added.Scenarios = mine
	all.Added = append(all.Added, added)
	all.Samples = append(all.Samples, r.Samples...)
	return all
}

// runs returns the runs that the results are of, each with its scenarios.
func (r *results) runs() []run {
	first := r.run
	first.Scenarios = slices.DeleteFunc(r.Samples.scenarios(), func(scenario string) bool {
		return slices.ContainsFunc(r.Added, func(added run) bool { return slices.Contains(added.Scenarios, scenario) })
	})
	return append([]run{first}, r.Added...)
}

// write writes the results into a folder, for programs and for benchstat.
func (r *results) write(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "results.json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "results.txt"), []byte(r.benchmarks()), 0o644)
}

// benchmarks returns the results in Go's benchmark format, which benchstat reads:
// "benchstat -col /lib results.txt".
func (r *results) benchmarks() string {
	var b strings.Builder
	for _, run := range r.runs() {
		system, arch, _ := strings.Cut(run.System, "/")
		fmt.Fprintf(&b, "goos: %s\ngoarch: %s\ncpu: %s\n", system, arch, run.CPU)
		r.Samples.benchmarks(&b, run.Scenarios)
	}
	return b.String()
}

// benchmarks writes those of the scenarios.
func (s samples) benchmarks(b *strings.Builder, scenarios []string) {
	for _, one := range s {
		if one.Failure != "" || !slices.Contains(scenarios, one.Scenario) {
			continue
		}
		name := strings.ReplaceAll(one.Scenario, "/", "/shape=")
		lib := strings.NewReplacer(" ", "-", "/", "-", ",", "").Replace(one.Peer)
		fmt.Fprintf(b, "Benchmark%s%s/lib=%s 1", strings.ToUpper(name[:1]), name[1:], lib)
		for _, figure := range slices.Sorted(maps.Keys(one.Figures)) {
			fmt.Fprintf(b, " %g %s", one.Figures[figure], figure)
		}
		b.WriteByte('\n')
	}
}
