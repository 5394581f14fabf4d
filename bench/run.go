package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// A sample is what one measurement of one contender in one round found.
type sample struct {
	Scenario string  `json:"scenario"`
	Peer     string  `json:"peer"`
	Settings string  `json:"settings"`
	Round    int     `json:"round"`
	Figures  figures `json:"figures,omitempty"`
	Failure  string  `json:"failure,omitempty"`
}

// A bench measures contenders in scenarios, on one site.
type bench struct {
	site     *site
	span     time.Duration // of a measurement
	rounds   int
	log      io.Writer
	scenario scenario // the one being measured
	round    int      // of it
}

// enter sees to it that the bench is on a site of this topology, and that no other
// servers run.
func (b *bench) enter(on topology, dir string) (err error) {
	if b.site != nil && b.site.on == on {
		return nil
	}
	b.leave()
	b.site, err = startSite(on, filepath.Join(dir, fmt.Sprint(on)))
	return err
}

// leave ends the servers.
func (b *bench) leave() {
	if b.site != nil {
		b.site.close()
	}
	b.site = nil
}

// run measures all contenders in the scenario, round by round, each time in
// another order. Who hung twice is not asked again.
func (b *bench) run(s scenario, all []contender) (samples []sample, err error) {
	b.scenario = s
	rounds := b.rounds
	if s.rounds > 0 {
		rounds = min(rounds, s.rounds)
	}
	all = slices.DeleteFunc(slices.Clone(all), func(c contender) bool { return c.on != s.on || !s.takes(c) })
	hung := make(map[string]int)
	for round := range rounds {
		b.round = round
		for i := range all {
			c := all[(i+round)%len(all)]
			if hung[c.name] > 1 || c.slow && round > 0 {
				continue
			}
			got, err := b.measure(c)
			if err != nil && !errors.As(err, new(failure)) {
				return nil, err // of the benchmark itself
			}
			one := sample{Scenario: s.name, Peer: c.name, Settings: c.best(s.use).String(), Round: round, Figures: got}
			if err != nil {
				one.Failure = err.Error()
				if errors.Is(err, errHung) {
					hung[c.name]++
				}
				fmt.Fprintf(b.log, "%s, %s, round %d: %v\n", s.name, c.name, round+1, err)
			}
			samples = append(samples, one)
		}
	}
	return samples, nil
}

// A failure is a contender's own, not the benchmark's.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

var errHung = errors.New("hangs")

// grace is what a contender gets to return after its context has ended, and what
// its goroutines get to end after it was closed.
const grace = 6 * time.Second

// measure measures one contender on peers of its own, which are gone afterwards.
func (b *bench) measure(c contender) (figures, error) {
	if err := b.site.reset(); err != nil {
		return nil, err
	}
	s := b.scenario
	goroutines := runtime.NumGoroutine()
	ctx, cancel := context.WithTimeout(context.Background(), s.limit+b.span)
	defer cancel()
	var peers []peer
	for range s.use.processes {
		p, err := c.open(b.site.addrs(), s.use.ttl, c.best(s.use))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		peers = append(peers, p)
	}
	runtime.GC()
	type outcome struct {
		figures figures
		err     error
	}
	measured := make(chan outcome, 1)
	go func() {
		f, err := s.measure(ctx, b, c, peers)
		measured <- outcome{f, err}
	}()
	var got outcome
	select {
	case got = <-measured:
		if ctx.Err() != nil {
			got = outcome{err: fmt.Errorf("%w: not done after %v", errHung, s.limit+b.span)}
		}
	case <-time.After(s.limit + b.span + grace):
		got = outcome{err: fmt.Errorf("%w: does not even return when its context ends", errHung)}
	}
	if err := b.site.heal(); err != nil {
		return nil, err
	}
	if c.lingers {
		goroutines += len(peers)
	}
	if err := closeAll(peers, goroutines); err != nil && got.err == nil {
		got = outcome{figures: got.figures, err: err}
	}
	if got.err != nil {
		got.err = failure{got.err}
	}
	return got.figures, got.err
}

// closeAll closes the peers, and waits until their goroutines are gone.
func closeAll(peers []peer, goroutines int) error {
	closed := make(chan error, 1)
	go func() {
		var errs error
		for _, p := range peers {
			errs = errors.Join(errs, p.Close())
		}
		closed <- errs
	}()
	select {
	case err := <-closed:
		if err != nil {
			return err
		}
	case <-time.After(grace):
		return fmt.Errorf("%w: does not close", errHung)
	}
	for end := time.Now().Add(grace); runtime.NumGoroutine() > goroutines; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%d goroutines are left after Close", runtime.NumGoroutine()-goroutines)
		}
	}
	return nil
}
