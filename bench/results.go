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

// Results are what a run found, and what one has to know to repeat it.
type results struct {
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
	Samples    samples           `json:"samples"`
}

// compared are the modules whose versions a reader wants to know.
var compared = []string{
	"github.com/redis/go-redis/v9", "github.com/go-redsync/redsync/v4", "github.com/bsm/redislock", "github.com/redis/rueidis",
}

func newResults() *results {
	r := &results{
		Date: time.Now().UTC().Truncate(time.Second), Flags: os.Args[1:],
		Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, CPU: cpuModel(),
		CPUs: runtime.NumCPU(), GOMAXPROCS: runtime.GOMAXPROCS(0),
		Modules: make(map[string]string),
	}
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
	system, arch, _ := strings.Cut(r.System, "/")
	fmt.Fprintf(&b, "goos: %s\ngoarch: %s\ncpu: %s\n", system, arch, r.CPU)
	for _, one := range r.Samples {
		if one.Failure != "" {
			continue
		}
		name := strings.ReplaceAll(one.Scenario, "/", "/shape=")
		lib := strings.NewReplacer(" ", "-", "/", "-", ",", "").Replace(one.Peer)
		fmt.Fprintf(&b, "Benchmark%s%s/lib=%s 1", strings.ToUpper(name[:1]), name[1:], lib)
		for _, figure := range slices.Sorted(maps.Keys(one.Figures)) {
			fmt.Fprintf(&b, " %g %s", one.Figures[figure], figure)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
