package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A guard stands beside a key. It is touched only by who holds the key's lock, and
// so finds out if two do.
type guard struct {
	holders  atomic.Int32
	released atomic.Int64 // when its last holder began to release it
	_        [64 - 12]byte
}

// A tally is what one caller has to tell. It is the caller's alone while he works.
type tally struct {
	acquired int
	settled  int             // of these, when the line had formed
	called   time.Duration   // when he last began
	last     time.Duration   // when he was done
	hung     bool            // he did not come back of himself
	acquire  []time.Duration // from the call to holding the lock
	pair     []time.Duration // from the call to the release's answer; if he hung, the last until then
	handoff  []time.Duration // from the release's begin to the next holder's return, if he was waiting by then
	err      error
}

// A drive is callers who acquire and release, as fast as they can.
type drive struct {
	peers  []peer
	use    use
	guards []guard
	names  []string
	formed time.Duration // when the lines are taken to have formed

	patience time.Duration // with callers, after all were told to stop
	giveUp   func()        // is called when it ends, if not nil
	over     atomic.Bool   // it has ended
}

func newDrive(peers []peer, u use) *drive {
	d := &drive{peers: peers, use: u, guards: make([]guard, u.keys), patience: patience}
	for i := range u.keys {
		d.names = append(d.names, fmt.Sprint("key", i))
	}
	return d
}

// now is on the monotonic clock.
func now() time.Duration { return time.Since(processStart) }

// patience is how long a caller may take after all were told to stop. Where
// wake-ups get lost, some would wait for ever for a key that nobody holds.
const patience = 2 * time.Second

// run lets the callers work for a span, and returns their tallies and how long it
// took until the last of them was done, those that hung left out.
func (d *drive) run(ctx context.Context, span time.Duration) ([]tally, time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tallies := make([]tally, d.use.callers)
	room := int(span.Seconds()*float64(1<<20))/d.use.callers + 1024
	for i := range tallies {
		tallies[i].acquire = make([]time.Duration, 0, room)
		tallies[i].pair = make([]time.Duration, 0, room)
		if d.use.contended() {
			tallies[i].handoff = make([]time.Duration, 0, room)
		}
	}
	var (
		stop    atomic.Bool
		callers sync.WaitGroup
		begin   = make(chan struct{})
	)
	for i := range tallies {
		callers.Go(func() {
			<-begin
			p, key := d.peers[i%len(d.peers)], i*d.use.keys/d.use.callers
			t := &tallies[i]
			for !stop.Load() && t.err == nil {
				t.err = d.once(ctx, p, key, t)
			}
			if d.over.Load() && t.err != nil {
				t.hung, t.err = true, nil
				t.pair = append(t.pair, now()-t.called)
			} else {
				t.last = now()
			}
		})
	}
	began := now()
	d.formed = began + span/20
	close(begin)
	stopping := time.AfterFunc(span, func() { stop.Store(true) })
	defer stopping.Stop()
	giveUp := time.AfterFunc(span+d.patience, func() {
		d.over.Store(true)
		cancel()
		if d.giveUp != nil {
			d.giveUp()
		}
	})
	defer giveUp.Stop()
	callers.Wait()
	took := span // at least, even if all hang
	for _, t := range tallies {
		took = max(took, t.last-began)
	}
	return tallies, took
}

// once acquires and releases the key.
func (d *drive) once(ctx context.Context, p peer, key int, t *tally) error {
	g := &d.guards[key]
	called := now()
	t.called = called
	release, err := p.Acquire(ctx, d.names[key])
	held := now()
	if err != nil {
		return fmt.Errorf("acquire: %w", err)
	}
	if g.holders.Add(1) != 1 {
		return fmt.Errorf("two hold %s at the same time", d.names[key])
	}
	if held >= d.formed {
		t.settled++
	}
	t.acquire = append(t.acquire, held-called)
	if released := time.Duration(g.released.Load()); released > called {
		t.handoff = append(t.handoff, held-released)
	}
	g.holders.Add(-1)
	g.released.Store(int64(now()))
	if err := release(); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	if d.over.Load() {
		return errLate
	}
	t.acquired++
	t.pair = append(t.pair, now()-called)
	return nil
}

// errLate is what becomes of a pair that was done only when all was over.
var errLate = errors.New("too late")

// pairs returns how long it took from the call to the release's answer, sorted.
func pairs(tallies []tally) (all []time.Duration) {
	for _, t := range tallies {
		all = append(all, t.pair...)
	}
	slices.Sort(all)
	return all
}

// sum adds up the tallies, and returns the error of the first who had one.
func sum(tallies []tally) (acquired int, acquire, handoff []time.Duration, err error) {
	for _, t := range tallies {
		if t.err != nil && err == nil {
			err = t.err
		}
		acquired += t.acquired
		acquire = append(acquire, t.acquire...)
		handoff = append(handoff, t.handoff...)
	}
	slices.Sort(acquire)
	slices.Sort(handoff)
	return acquired, acquire, handoff, err
}

// hung returns how many callers did not come back.
func hung(tallies []tally) (n int) {
	for _, t := range tallies {
		if t.hung {
			n++
		}
	}
	return n
}

// spread returns by how much the most served caller was served more often than the
// least served one, and what part that is of everybody's equal share. It counts
// from when all have come: until then, the first have the key to themselves.
func spread(tallies []tally) (n int, share float64) {
	least, most, all := tallies[0].settled, tallies[0].settled, 0
	for _, t := range tallies {
		least, most = min(least, t.settled), max(most, t.settled)
		all += t.settled
	}
	if all == 0 {
		return 0, 0
	}
	return most - least, float64(most-least) / (float64(all) / float64(len(tallies)))
}
