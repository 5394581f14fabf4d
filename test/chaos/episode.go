package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/redislock/redislock/test/check"
	"github.com/redislock/redislock/test/history"
)

// The load of an episode. TTLs are short, so that what costs a TTL can happen
// often.
const (
	slots    = 3 // workers at a time
	managers = 2 // of each worker
	callers  = 4 // of each manager
	minTTL   = 100 * time.Millisecond
	maxTTL   = 600 * time.Millisecond

	// How long all callers may take to finish once nothing is in the way.
	patience = 30 * time.Second
)

var keys = []string{"chaos-0", "chaos-1", "chaos-2"}

// An episode is one kind of fault, again and again, against a Redis and workers of
// its own.
type episode struct {
	fault fault
	seed  uint64
	dir   string

	site         site
	server       *server // the site, if that is a single one
	resource     *process
	resourceAddr string
	log          *history.Log
	proxies      [slots]proxies

	power    sync.Mutex // held while Redis is stopped or restarted
	rotation sync.Mutex // held while the workers' password changes
	password string     // the file with that

	mu       sync.Mutex
	rng      *rand.Rand
	workers  [slots]*process
	started  int
	injected map[string]int
	broken   []string // what went wrong other than a guarantee
	ending   bool
}

// outcome is what the episode leaves to the checkers.
type outcome struct {
	events   []history.Event
	records  []record
	leftover []check.Leftover
	healedAt int64
	injected map[string]int
	broken   []string
}

// run lets the workers work for a moment, hurts them for the given time, heals
// everything, and waits until all have finished.
func (e *episode) run(hurt time.Duration) (out outcome, err error) {
	if e.log, err = history.Create(filepath.Join(e.dir, "controller.log"), "controller"); err != nil {
		return out, err
	}
	e.password = filepath.Join(e.dir, "password")
	if err := e.publish(firstPassword); err != nil {
		return out, err
	}
	if e.site, err = e.startSite(); err != nil {
		return out, err
	}
	e.server, _ = e.site.(*server)
	defer e.site.close()
	defer e.killAll()
	if err := e.startResource(); err != nil {
		return out, err
	}
	for slot := range slots {
		if e.proxies[slot], err = startProxies(e.site.addrs(), e.seed+uint64(slot)); err != nil {
			return out, err
		}
		defer e.proxies[slot].close()
	}
	for slot := range slots {
		if err := e.startWorker(slot); err != nil {
			return out, err
		}
	}

	time.Sleep(300 * time.Millisecond)
	for end := time.Now().Add(hurt); time.Now().Before(end); {
		e.fault.inject(e)
		time.Sleep(e.upTo(300 * time.Millisecond))
	}
	if e.fault.movableClock {
		time.Sleep(5 * maxTTL) // for leases that a clock set back has made longer
	}
	e.mu.Lock()
	e.ending = true
	e.mu.Unlock()
	for _, p := range e.proxies {
		p.heal()
	}
	for _, w := range e.current() {
		_, _ = w.stdin.Write([]byte("healed\n")) // or it is gone
	}
	time.Sleep(10 * time.Millisecond)
	out.healedAt = history.Now()
	e.log.Add(history.Event{At: out.healedAt, Kind: history.Healed})

	time.Sleep(maxTTL + 500*time.Millisecond)
	e.finish()
	time.Sleep(maxTTL)
	e.checkFlags()
	if out.leftover, err = e.leftover(); err != nil {
		return out, err
	}
	out.injected, out.broken = e.injected, e.broken
	logs, err := filepath.Glob(filepath.Join(e.dir, "*.log"))
	if err != nil {
		return out, err
	}
	for _, path := range logs {
		events, err := history.Read(path)
		if err != nil {
			return out, err
		}
		out.events = append(out.events, events...)
	}
	out.records, err = e.site.end(ttls(out.events))
	return out, err
}

// ttls returns a function that tells the TTL, in ms, that an owner asked for.
func ttls(events []history.Event) func(value string) (int64, bool) {
	asked := make(map[string]int64)
	for _, e := range events {
		if e.Kind == history.Call {
			asked[e.Op] = e.TTL / int64(time.Millisecond)
		}
	}
	return func(value string) (int64, bool) {
		ttl, ok := asked[value]
		return ttl, ok
	}
}

// finish has the workers end what they have begun, and waits until they have.
func (e *episode) finish() {
	workers := e.current()
	for _, w := range workers {
		w.stdin.Close()
	}
	deadline := time.After(patience)
	for _, w := range workers {
		select {
		case <-w.gone:
		case <-deadline:
			// Says where it hangs, and ends.
			_ = w.cmd.Process.Signal(syscall.SIGQUIT)
			<-w.gone
			e.complain("%s had not finished %v after all was healed; its goroutines are in %s.stderr", w.name, patience, w.name)
		}
	}
}

func (e *episode) complain(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.broken = append(e.broken, fmt.Sprintf(format, args...))
}

// upTo returns a random duration from the episode's seed.
func (e *episode) upTo(d time.Duration) time.Duration { return time.Duration(e.below(int64(d))) }

func (e *episode) below(n int64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rng.Int64N(n)
}
