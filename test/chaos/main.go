// Chaos attacks processes that use the library, and the Redis that they use, and
// checks what they did and saw against the guarantees of the library.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/redislock/redislock/test/check"
	"github.com/redislock/redislock/test/history"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "worker" {
		var load workload
		if err := json.Unmarshal([]byte(os.Args[2]), &load); err != nil {
			exit(err)
		}
		if err := runWorker(load); err != nil {
			exit(err)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "resource" {
		exit(serveResource(os.Args[2]))
	}
	var (
		seed   = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of all random choices")
		total  = flag.Duration("for", 4*time.Minute, "about how long the run takes in all")
		share  = flag.String("share", "1/1", "k/n: of these faults only each n-th, beginning with the k-th")
		only   = flag.String("fault", ".", "regular expression of the faults to inject")
		report = flag.String("report", "", "page to write the table into, between its marks, if nothing was found")
		into   = flag.String("results", "", "file to write what came of each episode into, as JSON")
		keep   = flag.String("keep", "", "folder for the logs of all episodes; empty: only those of failures are kept")
	)
	flag.Parse()
	redis.SetLogger(&logging.VoidLogger{}) // of servers that were killed
	pattern, err := regexp.Compile(*only)
	if err != nil {
		exit(err)
	}
	chosen := slices.DeleteFunc(faults(), func(f fault) bool { return !pattern.MatchString(f.name) })
	if len(chosen) == 0 {
		exit(fmt.Errorf("no fault is called like %q", *only))
	}
	if chosen, err = shareOf(chosen, *share); err != nil {
		exit(err)
	}
	root, err := filepath.Abs(*keep)
	if err != nil {
		exit(err)
	}
	if *keep == "" {
		if root, err = os.MkdirTemp("", "chaos-"); err != nil {
			exit(err)
		}
	}
	began := time.Now()
	var rows []row
	failures := 0
	for i, f := range chosen {
		// What was not used of the time is left to those that follow.
		hurt := (*total-time.Since(began))/time.Duration(len(chosen)-i) - overhead
		r, err := attack(f, *seed, filepath.Join(root, fmt.Sprintf("%02d", i)), max(hurt, shortest))
		if err != nil {
			exit(err)
		}
		rows = append(rows, r)
		failures += r.failures()
	}
	fmt.Printf("\n%s\n%sseed %d, %v\n", table(rows), times(rows), *seed, time.Since(began).Round(time.Second))
	if *into != "" {
		if err := writeResults(*into, rows); err != nil {
			exit(err)
		}
	}
	if *report != "" && failures == 0 {
		if err := writeReport(*report, rows, *seed, time.Since(began)); err != nil {
			exit(err)
		}
	}
	if *keep == "" && failures == 0 {
		os.RemoveAll(root)
	}
	// The line that tells test runners what happened.
	fmt.Printf("%d passed, %d failed\n", len(rows)-failed(rows), failed(rows))
	if failures > 0 {
		os.Exit(1)
	}
}

// shareOf returns the faults of the share k/n. The shares together have all, and each has
// some of every kind of site.
func shareOf(all []fault, share string) (chosen []fault, err error) {
	var k, n int
	if _, err := fmt.Sscanf(share, "%d/%d", &k, &n); err != nil || k < 1 || k > n {
		return nil, fmt.Errorf("a share is k/n, with k from 1 to n: %q", share)
	}
	for i := k - 1; i < len(all); i += n {
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

const (
	overhead = 4 * time.Second // of an episode: start, drain, check
	shortest = time.Second     // that a fault is given
)

// slack is how late an event may be on a machine that the processes share with
// Redis, and with others.
const slack = 100 * time.Millisecond

// attack runs one episode and judges it. One in which servers did what nobody wanted,
// because the machine stood still, is run once more.
func attack(f fault, seed uint64, dir string, hurt time.Duration) (row, error) {
	wallMinusMono := history.WallMinusMono()
	var out outcome
	for tries := 1; ; tries++ {
		if tries > 1 {
			dir += "-again"
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return row{}, err
		}
		e := &episode{
			fault: f, seed: seed, dir: dir, injected: make(map[string]int),
			rng: rand.New(rand.NewPCG(seed, hash(f.name))),
		}
		var err error
		if out, err = e.run(hurt); err == nil {
			break
		}
		if !errors.Is(err, errAstray) || tries == 3 {
			return row{}, fmt.Errorf("%s: %w", f.name, err)
		}
		fmt.Printf("%s: %v; once more\n", f.name, err)
	}
	r := row{fault: f, injected: out.injected, broken: out.broken}
	var tales []string
	for i, one := range out.records {
		in := check.Input{
			Events: about(one.keys, out.events), Entries: one.entries, WallMinusMono: wallMinusMono, MaxTTL: maxTTL,
			Slack: slack, SecondClass: f.second, KeepDir: dir, Undisturbed: undisturbed(out.events),
		}
		if i == 0 {
			in.Leftover = out.leftover
		}
		report := check.Check(in)
		r.add(report, one.lost)
		for _, v := range report.Violations {
			if len(tales) < stories {
				tales = append(tales, check.Story(in, v))
			}
		}
	}
	fmt.Printf("%-50s %6d calls, %4d faults, %d violations%s\n", f.name, r.report.Operations, r.count(), r.failures(), r.losses())
	for _, text := range r.broken {
		fmt.Printf("  %s\n", text)
	}
	for _, key := range r.report.Unknown {
		fmt.Printf("  %s: no time to find out whether the history is linearizable\n", key)
	}
	for i, v := range r.report.Violations {
		fmt.Printf("  %v\n", v)
		if i < len(tales) {
			fmt.Println(tales[i])
		}
	}
	if r.failures() > 0 {
		fmt.Printf("  again: -seed %d -fault %q; logs: %s\n", seed, "^"+regexp.QuoteMeta(f.name)+"$", dir)
	}
	return r, nil
}

// about returns the events that have to do with the keys: all, if there are none.
func about(keys []string, events []history.Event) []history.Event {
	if len(keys) == 0 {
		return events
	}
	return slices.DeleteFunc(slices.Clone(events), func(e history.Event) bool {
		return e.Key != "" && !slices.Contains(keys, e.Key)
	})
}

// undisturbed tells the processes that no fault of the episode was aimed at, and
// whose requests all were answered.
func undisturbed(events []history.Event) func(process string) bool {
	hurt := make(map[string]bool)
	var targets []string
	for _, e := range events {
		switch e.Kind {
		case history.Killed, history.Stopped, history.Cut:
			hurt[e.Process] = true
		case history.Fault:
			if e.Process == "controller" {
				targets = append(targets, e.Target)
			}
		}
	}
	return func(process string) bool {
		return !hurt[process] && !slices.ContainsFunc(targets, func(target string) bool { return strings.HasPrefix(process, target) })
	}
}

// stories is how many violations of an episode are told at length.
const stories = 3

func failed(rows []row) (n int) {
	for _, r := range rows {
		if r.failures() > 0 {
			n++
		}
	}
	return n
}

func hash(text string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	return h.Sum64()
}
