// Bench compares redislock with other libraries for locks on Redis, and with the
// least that such a lock can cost, in one run. See README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

func main() {
	var (
		which = flag.String("run", ".", "regular expression of the scenarios to measure")
		peers = flag.String("peers", ".", "regular expression of the peers to measure")
		o     = options{}
		from  = flag.String("from", "", "results.json of a run to report on, in place of a new run")
		out   = flag.String("out", "", "folder for results.json, and results.txt for benchstat; empty: none")
		page  = flag.String("report", "", "page to write the tables into, between its marks; empty: only print them")
		merge = flag.Bool("merge", false, "with -out: keep what its results.json has of scenarios that are not measured now")
		plots = flag.String("plots", "", "folder to draw plots into; empty: none")
	)
	flag.IntVar(&o.rounds, "rounds", 5, "how often everything is measured")
	flag.DurationVar(&o.span, "for", time.Second, "how long each measurement of throughput takes")
	flag.BoolVar(&o.quick, "quick", false, "a short form, to see that all works: one round, -for 200ms, no 100,000 locks")
	flag.BoolVar(&o.trial, "trial", false, "compare the settings that each peer could have, in place of the peers")
	flag.Parse()
	redis.SetLogger(silent{}) // it tells of each failure to connect
	err := func() (err error) {
		if o.scenarios, err = regexp.Compile(*which); err != nil {
			return err
		}
		if o.peers, err = regexp.Compile(*peers); err != nil {
			return err
		}
		var r, earlier *results
		if *merge { // first, not to have measured in vain
			if earlier, err = readResults(filepath.Join(*out, "results.json")); err != nil {
				return err
			}
		}
		if *from != "" {
			r, err = readResults(*from)
		} else {
			r, err = measure(o)
		}
		if err != nil {
			return err
		}
		if earlier != nil {
			r = r.merge(earlier)
		}
		fmt.Print(r.report(), r.onSeveralServers())
		return r.publish(*out, *page, *plots)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// silent is a logger.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// Options say what to measure, and for how long.
type options struct {
	scenarios, peers *regexp.Regexp
	rounds           int
	span             time.Duration
	quick, trial     bool
}

// measure runs the benchmark.
func measure(o options) (*results, error) {
	if o.quick {
		o.rounds, o.span = 1, 200*time.Millisecond
	}
	all := everywhere()
	if o.trial {
		all = trials()
	}
	all = slices.DeleteFunc(all, func(c contender) bool { return !o.peers.MatchString(c.name) })
	some := chosen(scenarios(o.quick), o.scenarios)
	if len(all) == 0 || len(some) == 0 || o.rounds < 1 {
		return nil, fmt.Errorf("nothing to measure")
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r := newResults()
	r.Rounds, r.Span = o.rounds, o.span.String()
	b := &bench{span: o.span, rounds: o.rounds, log: os.Stderr}
	defer func() { b.leave() }()
	for _, s := range some {
		if err := b.enter(s.on, dir); err != nil {
			return nil, err
		}
		r.Redis = b.site.servers[0].version
		began := time.Now()
		samples, err := b.run(s, all)
		if err != nil {
			return nil, err
		}
		r.Samples = append(r.Samples, samples...)
		fmt.Fprintf(os.Stderr, "%s: %v\n", s.name, time.Since(began).Round(100*time.Millisecond))
	}
	r.Took = time.Since(r.Date).Seconds()
	return r, nil
}

// publish writes results, report and plots to where they are wanted.
func (r *results) publish(out, page, plots string) error {
	if out != "" {
		if err := r.write(out); err != nil {
			return err
		}
	}
	if page != "" {
		if err := r.writeReport(page); err != nil {
			return err
		}
	}
	if plots != "" {
		return r.draw(plots)
	}
	return nil
}
