package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSummary(t *testing.T) {
	require.Equal(t, summary{}, summarize(nil))
	require.Equal(t, summary{3, 1, 5, 3}, summarize([]float64{5, 1, 3}))
	require.Equal(t, summary{2.5, 1, 4, 4}, summarize([]float64{4, 3, 2, 1}))
}

func TestPercentile(t *testing.T) {
	require.Zero(t, percentile(nil, 50))
	var sorted []time.Duration
	for i := range 100 {
		sorted = append(sorted, time.Duration(i+1))
	}
	require.Equal(t, time.Duration(51), percentile(sorted, 50))
	require.Equal(t, time.Duration(100), percentile(sorted, 99))
	require.Equal(t, time.Duration(100), percentile(sorted, 100))
}

func TestOrder(t *testing.T) {
	require.Zero(t, inversions(nil))
	require.Zero(t, inversions([]int{0, 1, 2, 3}))
	require.Equal(t, 1.0, inversions([]int{3, 2, 1, 0}))
	require.InDelta(t, 1.0/6, inversions([]int{0, 2, 1, 3}), 1e-9)
	require.Equal(t, 0, overtaken([]int{0, 1, 2, 3}))
	require.Equal(t, 3, overtaken([]int{1, 2, 3, 0}))
}

func TestSpreadCountsFromWhenTheLineHasFormed(t *testing.T) {
	n, share := spread([]tally{{acquired: 90, settled: 10}, {acquired: 12, settled: 12}, {acquired: 8, settled: 8}})
	require.Equal(t, 4, n)
	require.InDelta(t, 0.4, share, 1e-9)
}

func measured(scenario, peer string, round int, figure string, value float64) sample {
	return sample{Scenario: scenario, Peer: peer, Round: round, Figures: figures{figure: value}}
}

// What disturbs a round disturbs both: ratios are taken within a round.
func TestRatioIsThatOfTheRounds(t *testing.T) {
	s := samples{
		measured("x", "a", 0, "pairs/s", 100), measured("x", "b", 0, "pairs/s", 50),
		measured("x", "a", 1, "pairs/s", 10), measured("x", "b", 1, "pairs/s", 5),
		measured("x", "a", 2, "pairs/s", 90), measured("x", "b", 2, "pairs/s", 30),
		measured("x", "a", 3, "pairs/s", 1), // b failed
		{Scenario: "x", Peer: "b", Round: 3, Failure: "hangs", Figures: figures{"pairs/s": 1000}},
	}
	require.Equal(t, summary{2, 2, 3, 3}, s.ratio("x", "a", "b", "pairs/s"))
	require.Equal(t, 3, s.of("x", "b", "pairs/s").rounds)
	require.Equal(t, "a", s.best("x", "pairs/s", "b", "a", "nobody"))
	require.Equal(t, "", s.best("y", "pairs/s", "b", "a"))
	require.Equal(t, "hangs", s.failure("x", "b"))
}

func find(t *testing.T, all []verdict, target string) verdict {
	t.Helper()
	for _, v := range all {
		if strings.HasPrefix(v.target, target) {
			return v
		}
	}
	require.Fail(t, "no such target", target)
	return verdict{}
}

func TestTargets(t *testing.T) {
	s := samples{
		measured("contended/8x8", "redislock", 0, "pairs/s", 9000),
		measured("contended/8x8", "redsync", 0, "pairs/s", 1000),
		measured("contended/8x8", "bsm/redislock", 0, "pairs/s", 2990),
		measured("contended/8x8", "SET NX PX", 0, "pairs/s", 20_000), // is no peer
		measured("uncontended/1", "redislock", 0, "pairs/s", 94),
		measured("uncontended/1", "SET NX PX", 0, "pairs/s", 100),
		measured("parked/10000", "redislock", 0, "heap-B/waiter", 1024),
		measured("renew/100000", "redislock", 0, "lost", 0),
	}
	all := s.targets()
	v := find(t, all, "one key, 8 managers")
	require.True(t, v.measured && v.reached)
	require.Contains(t, v.target, "3 times bsm/redislock")
	require.Equal(t, "3.01", v.ratio)
	v = find(t, all, "uncontended, 1 goroutine")
	require.True(t, v.measured)
	require.False(t, v.reached)
	v = find(t, all, "10,000 parked waiters: heap")
	require.False(t, v.reached)
	require.True(t, find(t, all, "100,000 locks on auto-renew: lost").reached)
	require.False(t, find(t, all, "uncontended, 16 goroutines").measured)
}

func TestNumbers(t *testing.T) {
	for n, text := range map[float64]string{
		0: "0", 1: "1", 1.5: "1.50", 12.34: "12.3", 123.4: "123", 999: "999", 1234: "1,234",
		12_345: "12,350", 1_234_567: "1,234,570", -1234: "-1,234",
	} {
		require.Equal(t, text, short(n))
	}
}

func someResults() *results {
	r := newResults()
	r.Redis, r.Rounds, r.Span = "7.0.15", 2, "1s"
	for round := range 2 {
		for _, scenario := range []string{"uncontended/1", "uncontended/16", "uncontended/256", "contended/1x64", "contended/8x8", "contended/16x1"} {
			for i, c := range contenders() {
				r.Samples = append(r.Samples, sample{
					Scenario: scenario, Peer: c.name, Settings: "defaults", Round: round,
					Figures: figures{"pairs/s": float64(1000 * (i + round + 1)), "spread-%": float64(i), "acquire-p99-us": 100},
				})
			}
		}
	}
	r.Samples[0].Failure = "hangs"
	return r
}

func TestReportGoesBetweenItsMarks(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	const begin, end, begin2, end2 = "<!-- bench -->\n", "<!-- /bench -->\n", "<!-- bench topologies -->\n", "<!-- /bench topologies -->\n"
	require.NoError(t, os.WriteFile(page, []byte("before\n"+begin+"old\n"+end+"between\n"+begin2+"other\n"+end2+"after\n"), 0o644))
	r := someResults()
	written := func() string {
		require.NoError(t, r.writeReport(page))
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		return string(text)
	}
	for range 2 { // again, in place of the first
		require.Equal(t, "before\n"+begin+r.report()+end+"between\n"+begin2+"other\n"+end2+"after\n", written())
	}
	main := r.report()
	r = someTopologies()
	require.Equal(t, "before\n"+begin+main+end+"between\n"+begin2+r.onSeveralServers()+end2+"after\n", written(), "the rest is left as it is")
	r = someResults()
	require.Contains(t, r.report(), "| **redislock** | 2,000 |")
	require.Contains(t, r.report(), "| redsync | 2,500 (2,000–3,000) |")
	require.Contains(t, r.report(), "uncontended/1, redislock, round 1: hangs")
	require.NoError(t, os.WriteFile(page, []byte("no marks"), 0o644))
	require.ErrorContains(t, r.writeReport(page), "lacks the marks")
}

func TestResultsAreReadAsTheyWereWritten(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "new")
	r := someResults()
	require.NoError(t, r.write(folder))
	back, err := readResults(filepath.Join(folder, "results.json"))
	require.NoError(t, err)
	require.Equal(t, r, back)
	text, err := os.ReadFile(filepath.Join(folder, "results.txt"))
	require.NoError(t, err)
	require.Contains(t, string(text), "\nBenchmarkContended/shape=8x8/lib=bsm-redislock 1 100 acquire-p99-us 3000 pairs/s 2 spread-%\n")
}

func TestPlots(t *testing.T) {
	folder := t.TempDir()
	require.NoError(t, someResults().draw(folder))
	files, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Len(t, files, 4, "those whose scenarios were measured")
	svg, err := os.ReadFile(filepath.Join(folder, "contended.svg"))
	require.NoError(t, err)
	require.Contains(t, string(svg), "rueidislock")
}

// someTopologies are the results of a run of some scenarios on several servers.
func someTopologies() *results {
	r := newResults()
	r.Redis, r.Rounds, r.Span, r.CPU = "7.0.99", 2, "1s", "another"
	for round := range 2 {
		for i, c := range everywhere() {
			for _, scenario := range []string{"quorum/1", "quorum/1-hung", "cluster/1"} {
				if c.on != topologyOf(scenario) {
					continue
				}
				f := figures{"pairs/s": float64(1000 * (i + round + 1)), "pair-p50-us": 1000, "pair-p99-us": 2000, "pair-max-us": 3000}
				if scenario == "quorum/1-hung" && c.role == rival {
					f = figures{"pairs/s": 0, "pair-p50-us": 4e6, "pair-p99-us": 4e6, "pair-max-us": 4e6, "hung": 1}
				}
				r.Samples = append(r.Samples, sample{Scenario: scenario, Peer: c.name, Settings: scenario, Round: round, Figures: f})
			}
		}
	}
	return r
}

func TestSeveralServersAreReportedApart(t *testing.T) {
	r := someTopologies().merge(someResults())
	require.Equal(t, someResults().report(), r.report(), "what was measured on one server")
	text := r.onSeveralServers()
	require.Equal(t, someTopologies().onSeveralServers(), text)
	require.Equal(t, text, r.onSeveralServers(), "again")
	require.Contains(t, text, "Redis 7.0.99")
	require.Contains(t, text, "| **redislock** | 1 / 2 / 3 | 1 / 2 / 3 | – |")
	require.Contains(t, text, "| redsync | 1 / 2 / 3 | none done in 4,000 | – |")
	require.Contains(t, text, "- quorum/1-hung, redsync, round 2: 1 of the callers still waited seconds after all others had gone\n")
	require.Contains(t, text, "| cluster/1 | rueidislock |")
	require.NotContains(t, text, "bsm/redislock:")
	require.NotContains(t, text, "uncontended")
	require.NotContains(t, text, "One key", "which was not measured")
}

func TestMergedResultsKeepTheOthersAndSayOfWhichRunTheyAre(t *testing.T) {
	folder := t.TempDir()
	main, before := someResults(), someTopologies()
	before.Redis = "6.9"
	require.NoError(t, before.merge(main).write(folder))
	for range 2 { // again, in place of the first
		earlier, err := readResults(filepath.Join(folder, "results.json"))
		require.NoError(t, err)
		require.NoError(t, someTopologies().merge(earlier).write(folder))
	}
	r, err := readResults(filepath.Join(folder, "results.json"))
	require.NoError(t, err)
	require.Equal(t, main.run, r.run)
	require.Equal(t, append(main.Samples, someTopologies().Samples...), r.Samples)
	require.Len(t, r.Added, 1)
	require.Equal(t, "7.0.99", r.Added[0].Redis)
	require.Equal(t, []string{"quorum/1", "quorum/1-hung", "cluster/1"}, r.Added[0].Scenarios)
	text, err := os.ReadFile(filepath.Join(folder, "results.txt"))
	require.NoError(t, err)
	require.Contains(t, string(text), "cpu: another\nBenchmarkQuorum/shape=1/lib=redislock 1 ")

	// Some of its scenarios once more.
	third := someTopologies()
	third.Redis = "7.1"
	third.Samples = slices.DeleteFunc(third.Samples, func(s sample) bool { return s.Scenario != "cluster/1" })
	r = third.merge(r)
	require.Len(t, r.Added, 2)
	require.Equal(t, []string{"quorum/1", "quorum/1-hung"}, r.Added[0].Scenarios)
	require.Equal(t, []string{"cluster/1"}, r.Added[1].Scenarios)
	require.Contains(t, r.onSeveralServers(), "cluster/1, of a run of their own: ")
	require.Len(t, r.Samples, len(main.Samples)+len(someTopologies().Samples))
}
