package simulation

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Faults come in two classes. Those of the first break no promise at all: the
// network, a frozen or refusing Redis, processes that end, programs that use the
// same keys as they should. Those of the second take keys away: then exclusion
// may be lost, and all else holds.

type fault struct {
	name   string
	second bool
	strike func(s *simulation, r *rand.Rand)
}

var faults = []fault{
	{"freeze", false, func(s *simulation, r *rand.Rand) {
		if s.server.frozen {
			return
		}
		s.server.frozen = true
		d := upTo(r, 3*s.scale)
		s.story.add("FAULT Redis is frozen for %v", d)
		s.net.at(s.net.now()+d, s.server.thaw)
	}},
	{"script flush", false, func(s *simulation, r *rand.Rand) {
		s.story.add("FAULT SCRIPT FLUSH")
		clear(s.server.scripts)
	}},
	{"cut subscriptions", false, func(s *simulation, r *rand.Rand) {
		s.story.add("FAULT subscriptions are cut")
		s.cut(func(c *conn) bool { return len(c.subs) > 0 && r.IntN(4) > 0 })
	}},
	{"cut all", false, func(s *simulation, r *rand.Rand) {
		s.story.add("FAULT all connections are cut")
		s.cut(func(*conn) bool { return true })
	}},
	{"black hole", false, func(s *simulation, r *rand.Rand) {
		p := pick(r, s.processes...)
		s.story.add("FAULT the connections of %s go silent", p)
		up, down := r.IntN(3) > 0, r.IntN(3) > 0
		for _, c := range s.net.conns {
			if c.process == p && !c.gone {
				c.upDead, c.downDead = c.upDead || up, c.downDead || down
			}
		}
	}},
	{"refuse", false, func(s *simulation, r *rand.Rand) {
		s.server.refusing = pick(r, failure("LOADING Redis is loading the dataset in memory"),
			failure("BUSY Redis is busy running a script."), failure("OOM command not allowed when used memory > 'maxmemory'."),
			failure("READONLY You can't write against a read only replica."),
			// The same, as scripts of Redis 6.2 say it.
			failure("@user_script: 31: -READONLY You can't write against a read only replica.  "),
			failure("ERR Error running script (call to f_da39a3ee5e6b4b0d3255bfef95601890afd80709): "+
				"@user_script:58: @user_script: 58: -NOREPLICAS Not enough good replicas to write.  "))
		d := upTo(r, 2*s.scale)
		s.story.add("FAULT Redis answers %s for %v", s.server.refusing, d)
		s.net.at(s.net.now()+d, func() { s.server.refusing = "" })
	}},
	{"process gone", false, func(s *simulation, r *rand.Rand) {
		if p := pick(r, s.processes...); !p.gone && s.running() > 1 {
			noticed := time.Duration(0)
			if r.IntN(2) == 0 {
				noticed = upTo(r, 5*s.scale)
			}
			p.vanish(noticed)
		}
	}},
	{"close", false, func(s *simulation, r *rand.Rand) {
		if p := pick(r, s.processes...); !p.gone && !p.closing && s.running() > 1 {
			s.goroutines.Go(func() { p.close(s.truth) })
		}
	}},
	{"foreign locker", false, func(s *simulation, r *rand.Rand) {
		s.foreign(r, pick(r, s.keys...))
	}},
	{"restart", false, func(s *simulation, r *rand.Rand) {
		s.story.add("FAULT Redis restarts, with its data")
		clear(s.server.scripts)
		s.cut(func(*conn) bool { return true })
	}},

	{"failover", false, func(s *simulation, r *rand.Rand) { s.failOver(r) }},

	{"FLUSHALL", true, func(s *simulation, r *rand.Rand) {
		s.story.add("FAULT FLUSHALL")
		s.byFault(s.server.store.flush)
	}},
	{"restart empty", true, func(s *simulation, r *rand.Rand) {
		s.story.add("FAULT Redis restarts, empty")
		clear(s.server.scripts)
		s.byFault(s.server.store.flush)
		s.cut(func(*conn) bool { return true })
	}},
	{"foreign delete", true, func(s *simulation, r *rand.Rand) {
		key := pick(r, s.keys...)
		s.story.add("FAULT a foreign program deletes %s", key)
		s.byFault(func() { s.server.store.do([]string{"DEL", key}) })
	}},
	{"foreign overwrite", true, func(s *simulation, r *rand.Rand) {
		key := pick(r, s.keys...)
		a := s.foreigner(key, upTo(r, 2*s.scale))
		s.story.add("FAULT a foreign program overwrites %s, ttl %v", key, a.ttl)
		s.byFault(func() { s.server.store.do([]string{"SET", key, a.value, "PX", fmt.Sprint(a.ttl.Milliseconds())}) })
	}},
}

func upTo(r *rand.Rand, d time.Duration) time.Duration {
	return time.Millisecond + time.Duration(r.Int64N(int64(d)))
}

// running counts the processes that can still be used.
func (s *simulation) running() (n int) {
	for _, p := range s.processes {
		if !p.gone && !p.closing {
			n++
		}
	}
	return n
}

func (s *simulation) cut(which func(*conn) bool) {
	for _, c := range s.net.conns {
		if !c.gone && which(c) {
			c.cut()
		}
	}
}

func (s *simulation) byFault(f func()) {
	c := &call{name: "a fault", byFault: true}
	s.truth.begin(c)
	defer s.truth.end(c)
	f()
}

// failOver has the other server become the master behind the one address, of which each
// process learns at a moment of its own. What was connected stays so.
func (s *simulation) failOver(r *rand.Rand) {
	ahead := pick(r, 0, -upTo(r, 2*time.Second), upTo(r, 2*time.Second))
	if s.second {
		ahead = max(ahead, 0) // where keys are lost, tokens rise only if no clock goes back
	}
	linked := r.IntN(3) > 0
	s.story.add("FAULT another server is the master, whose clock is %v ahead; the old one follows it: %t", ahead, linked)
	s.server.failOver(ahead, linked)
	for _, p := range s.processes {
		s.net.at(s.net.now()+upTo(r, s.scale/2), func() { p.side = s.server.master })
	}
}

// foreigner makes an attempt of a program that does not use the library.
func (s *simulation) foreigner(key string, ttl time.Duration) *attempt {
	s.foreigners++
	name := fmt.Sprintf("foreign-%d", s.foreigners)
	a := &attempt{name: name, value: name, key: s.truth.key(key), ttl: ttl, try: true}
	s.truth.enter(a)
	a.waiting = false
	return a
}

// foreign locks a key as any program does: SET NX PX, and a delete that checks
// the owner, unless it dies.
func (s *simulation) foreign(r *rand.Rand, key string) {
	a := s.foreigner(key, upTo(r, s.scale))
	run := func(f func()) {
		c := &call{name: "SET"}
		s.truth.begin(c)
		defer s.truth.end(c)
		f()
	}
	run(func() {
		taken := s.server.store.do([]string{"SET", key, a.value, "NX", "PX", fmt.Sprint(a.ttl.Milliseconds())})
		s.story.add("a foreign program tries for %s, ttl %v: %v", key, a.ttl, answer{taken})
	})
	if r.IntN(3) == 0 {
		return
	}
	s.net.at(s.net.now()+upTo(r, 2*a.ttl), func() {
		run(func() {
			if s.server.store.do([]string{"GET", key}) == a.value {
				s.story.add("the foreign program deletes %s", key)
				s.server.store.do([]string{"DEL", key})
			}
		})
	})
}
