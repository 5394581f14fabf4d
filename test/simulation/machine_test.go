package simulation

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/ownvalue"
)

// A machine is the library beside a model that says the same with a list: who
// comes stands at its end, who is first holds the key. Rapid draws what is done,
// and shrinks what fails to the shortest list of actions.
type machine struct {
	*simulation
	line  []*turn // the first is the holder
	turns []*turn
}

type turn struct {
	*attempt
	cancel context.CancelFunc
}

// broken is what went wrong. Rapid's own way to say so must not cross the edge
// of the bubble.
type broken string

func (m *machine) fail(format string, args ...any) {
	panic(broken(fmt.Sprintf(format, args...)))
}

const theKey = "key"

// settle lets all that was begun come to its end.
const settle = 100 * time.Millisecond

func newMachine() *machine {
	s := &simulation{seed: 1}
	s.prepare(theKey)
	for i := range 3 {
		s.processes = append(s.processes, startProcess(s.net, string(rune('A'+i)), s.random))
	}
	s.net.weather = calm
	return &machine{simulation: s}
}

func (m *machine) do(f func()) {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	f()
}

// catchUp moves the model on to the present, by the leases that Redis has granted:
// whoever's lease is over makes room for the next.
func (m *machine) catchUp() {
	time.Sleep(settle)
	for over := false; !over; {
		var wait time.Duration
		m.do(func() {
			k := m.truth.key(theKey)
			m.server.store.expire()
			for len(m.line) > 0 && m.line[0].owned > 0 && k.owner != m.line[0].attempt {
				m.line = m.line[1:]
			}
			// A holder counts on less than Redis grants. The model does not know
			// what is true in between: on to the end of the lease.
			if a := k.owner; a != nil && a.granted && m.net.now() > m.truth.at(a.lock.ValidUntil())-2*settle {
				wait = k.expires - m.net.now() + settle
			}
			if k.owner == nil && m.net.now() < k.free+settle && len(m.line) > 0 {
				wait = settle // the next one is about to take over
			}
			over = wait == 0
		})
		time.Sleep(wait)
	}
}

// check compares the library with the model.
func (m *machine) check(t *rapid.T) {
	m.catchUp()
	m.do(func() {
		var want *attempt
		if len(m.line) > 0 {
			want = m.line[0].attempt
		}
		if owner := m.truth.key(theKey).owner; owner != want {
			m.fail("%v owns the key, and %v should", owner, want)
		}
		for i, x := range m.line {
			if x.granted != (i == 0) || x.waiting == (i == 0) {
				m.fail("%v is at place %d of the line: granted %v, waiting %v", x, i, x.granted, x.waiting)
			}
		}
		if len(m.story.violations) > 0 {
			m.fail("%s", m.story.problems())
		}
	})
}

func (m *machine) start(t *rapid.T, try bool) {
	p := m.processes[rapid.IntRange(0, len(m.processes)-1).Draw(t, "process")]
	seconds := rapid.IntRange(1, 9).Draw(t, "ttl")
	x := &turn{attempt: &attempt{
		name: fmt.Sprintf("%s%d", p, len(m.turns)+1), process: p, try: try,
		ttl: time.Duration(seconds) * time.Second,
	}}
	x.value = x.name
	m.turns = append(m.turns, x)
	ctx, cancel := context.WithCancel(context.Background())
	x.cancel = cancel
	free := len(m.line) == 0
	m.do(func() {
		x.key = m.truth.key(theKey)
		m.story.add("%v: Lock, ttl %v, try %v", x, x.ttl, try)
		m.truth.enter(x.attempt)
	})
	m.goroutines.Go(func() {
		var l *redislock.Lock
		var err error
		if try {
			l, err = p.manager.TryLock(ownvalue.With(ctx, x.value), theKey, x.ttl)
		} else {
			l = p.manager.Lock(ownvalue.With(ctx, x.value), theKey, x.ttl)
			m.do(func() { x.lock = l })
			err = l.Wait().Err
		}
		m.do(func() {
			if err != nil {
				m.truth.wasRefused(x.attempt, err)
			} else {
				m.truth.wasGranted(x.attempt, l, l.Wait())
			}
		})
	})
	if !try || free {
		m.line = append(m.line, x)
	}
}

// some draws a place of the line.
func (m *machine) some(t *rapid.T) int {
	if len(m.line) == 0 {
		t.Skip("nobody is there")
	}
	return rapid.IntRange(0, len(m.line)-1).Draw(t, "place")
}

// Unlock lets the holder release, or a waiter leave.
func (m *machine) Unlock(t *rapid.T) {
	i := m.some(t)
	x := m.line[i]
	m.do(func() { m.truth.unlocks(x.attempt) })
	began := time.Now()
	err := x.lock.Unlock()
	m.do(func() { m.truth.wasUnlocked(x.attempt, err, time.Since(began)) })
	if err != nil {
		m.fail("Unlock of %v: %v", x, err)
	}
	m.line = slices.Delete(m.line, i, i+1)
}

// Cancel ends the context of a waiter; a holder does not mind.
func (m *machine) Cancel(t *rapid.T) {
	i := m.some(t)
	m.do(func() { m.story.add("the context of %v ends", m.line[i]) })
	m.line[i].cancel()
	if i > 0 {
		m.line = slices.Delete(m.line, i, i+1)
	}
}

func (m *machine) Extend(t *rapid.T) {
	if len(m.line) == 0 {
		t.Skip("nobody is there")
	}
	x := m.line[0]
	ttl := time.Duration(rapid.IntRange(1, 9).Draw(t, "ttl")) * time.Second
	m.do(func() { m.story.add("%v extends to %v", x, ttl) })
	if err := x.lock.Extend(context.Background(), ttl); err != nil {
		m.fail("Extend of %v: %v", x, err)
	}
}

func (m *machine) Advance(t *rapid.T) {
	time.Sleep(time.Duration(rapid.IntRange(1, 8).Draw(t, "quarters of a second")) * 250 * time.Millisecond)
}

func (m *machine) cutThem(what string, which func(c *conn) bool) {
	m.do(func() {
		m.story.add("FAULT %s", what)
		m.cut(which)
	})
	time.Sleep(backoff)
}

// backoff is how long the library may wait, after several cuts in a row, before
// it subscribes again.
const backoff = 600 * time.Millisecond

// flush takes all away. Who held the key does not learn of it, and the line forms
// anew: its first is the one whose process looks first.
func (m *machine) FlushAll(t *rapid.T) {
	m.do(func() {
		m.story.add("FAULT FLUSHALL")
		m.byFault(m.server.store.flush)
	})
	if len(m.line) > 0 {
		m.line = m.line[1:]
	}
	if len(m.line) == 0 {
		return
	}
	time.Sleep(20 * time.Second) // beyond every lease that anybody has seen
	m.do(func() { m.story.add("the line of %v has formed again", m.line) })
	m.line = slices.DeleteFunc(m.line, func(x *turn) bool { return x.owned > 0 && m.truth.key(theKey).owner != x.attempt })
	for i, x := range m.line {
		if m.truth.key(theKey).owner == x.attempt {
			m.line = slices.Insert(slices.Delete(m.line, i, i+1), 0, x)
			break
		}
	}
}

// finish lets everybody go.
func (m *machine) finish() {
	for _, x := range m.turns {
		x.cancel()
	}
	time.Sleep(settle)
	for _, x := range m.turns {
		holds := false
		m.do(func() {
			if holds = x.granted && !x.unlocked; holds {
				m.truth.unlocks(x.attempt)
			}
		})
		if holds {
			_ = x.lock.Unlock()
		}
	}
	for _, p := range m.processes {
		p.close(m.truth)
	}
	m.end()
}

func TestMachine(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var m *machine
		var failure any
		// Rapid tells of a failure by a panic, which must not leave the bubble's
		// goroutine.
		synctest.Test(t, func(*testing.T) {
			m = newMachine()
			defer m.finish()
			defer func() { failure = recover() }()
			rt.Repeat(map[string]func(*rapid.T){
				"":               m.check,
				"lock":           func(t *rapid.T) { m.start(t, false) },
				"try lock":       func(t *rapid.T) { m.start(t, true) },
				"unlock":         m.Unlock,
				"cancel":         m.Cancel,
				"extend":         m.Extend,
				"advance":        m.Advance,
				"flush":          m.FlushAll,
				"script flush":   func(*rapid.T) { m.do(func() { clear(m.server.scripts) }) },
				"cut listeners":  func(*rapid.T) { m.cutThem("subscriptions are cut", func(c *conn) bool { return len(c.subs) > 0 }) },
				"cut everything": func(*rapid.T) { m.cutThem("all connections are cut", func(*conn) bool { return true }) },
			})
		})
		switch failure := failure.(type) {
		case nil:
		case broken:
			rt.Fatalf("%s\n%v", failure, m.story)
		default: // rapid wants to try something else
			panic(failure)
		}
		if len(m.story.violations) > 0 {
			rt.Fatalf("%s\n%v", m.story.problems(), m.story)
		}
	})
}
