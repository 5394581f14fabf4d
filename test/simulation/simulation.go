package simulation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redislock/redislock"
)

// A simulation is one run: a seed decides all that happens in it.
type simulation struct {
	seed      uint64
	random    *rand.Rand
	net       *network
	server    *server
	truth     *truth
	story     *story
	processes []*process
	keys      []string
	scale     time.Duration // TTLs and faults are as long as this
	trouble   time.Duration // for how long there are faults
	second    bool          // some of which may take keys away

	foreigners int
	goroutines sync.WaitGroup // that close managers or watch Done
}

// simulate carries out the simulation of a seed and returns its story.
func simulate(t *testing.T, seed uint64) *story {
	s := &simulation{seed: seed}
	synctest.Test(t, func(t *testing.T) {
		s.begin()
		s.play()
	})
	return s.story
}

// prepare makes the server and the network.
func (s *simulation) prepare(keys ...string) {
	s.random = rand.New(rand.NewPCG(s.seed, 0))
	r := s.random
	s.net = &network{start: time.Now(), calmed: make(chan struct{})}
	s.story = &story{net: s.net}
	s.net.story = s.story
	s.truth = &truth{net: s.net, story: s.story, keys: make(map[string]*keyTruth), byValue: make(map[string]*attempt)}
	s.server = &server{
		net: s.net, truth: s.truth, scripts: make(map[string]bool),
		ahead:    time.Duration(s.net.start.UnixNano()) + time.Duration(r.Int64N(int64(2*time.Hour))) - time.Hour,
		ppm:      r.Int64N(1001) - 500,
		lag:      rand.New(rand.NewPCG(s.seed, 1)),
		noConfig: r.IntN(4) == 0,
	}
	s.server.store = &store{now: s.server.clock, entries: make(map[string]*entry), watch: s.truth, notify: s.server.notify}
	s.net.server, s.truth.server = s.server, s.server
	s.keys = keys
}

// begin makes what the seed wants.
func (s *simulation) begin() {
	s.prepare()
	r := s.random
	s.scale = pick(r, 200*time.Millisecond, time.Second, 5*time.Second)
	for i := range 2 + r.IntN(3) {
		var opts []redislock.Option
		if r.IntN(4) == 0 {
			opts = append(opts, redislock.WithKeyspaceEvents(redislock.KeyspaceOff))
		}
		if r.IntN(8) == 0 {
			opts = append(opts, redislock.WithMaxQueue(2))
		}
		s.processes = append(s.processes, startProcess(s.net, string(rune('A'+i)), r, opts...))
	}
	s.truth.processes = s.processes
	s.keys = []string{"key", "other"}[:1+r.IntN(2)]
}

// calm is the weather after the healing.
var calm = weather{delay: time.Millisecond, longest: time.Millisecond, keepalive: time.Second}

// climate draws the weather of the time of trouble.
func (s *simulation) climate() weather {
	r := s.random
	w := calm
	w.longest, w.keepalive = s.scale, upTo(r, 5*s.scale)
	w.delay = pick(r, 200*time.Microsecond, 2*time.Millisecond, 20*time.Millisecond)
	badness := pick(r, 0.0, 0, 0.002, 0.01, 0.04)
	some := func() float64 { return badness * r.Float64() * pick(r, 0.0, 1, 2) }
	w.spike, w.cut, w.hole, w.stall, w.refused = some(), some(), some(), some(), 5*some()
	w.trickle = pick(r, 0.0, 0.5)
	return w
}

// play lets the callers loose, the faults strike, heals, and checks that all
// ends well.
func (s *simulation) play() {
	r := s.random
	s.net.mu.Lock()
	s.net.weather = s.climate()
	s.trouble = 2*s.scale + time.Duration(r.Int64N(int64(4*s.scale)))
	s.strike()
	s.story.add("seed %d: %d processes, TTLs around %v, weather %+v, trouble for %v", s.seed, len(s.processes), s.scale, s.net.weather, s.trouble)
	s.net.mu.Unlock()

	var callers sync.WaitGroup
	pause := pick(r, s.scale/20, s.scale/2, s.scale*2)
	for _, p := range s.processes {
		for i := range 2 + r.IntN(5) {
			c := &caller{
				name: fmt.Sprintf("%s%d", p.name, i+1), process: p, truth: s.truth,
				random: rand.New(rand.NewPCG(r.Uint64(), r.Uint64())),
				keys:   s.keys, scale: s.scale, pause: pause, rounds: 1 + r.IntN(4),
				done: &s.goroutines,
			}
			callers.Go(c.run)
		}
	}
	finished := make(chan struct{})
	time.Sleep(s.trouble)
	s.heal()
	s.goroutines.Go(func() { callers.Wait(); close(finished) })
	for _, p := range s.processes {
		if p.gone {
			p.close(s.truth) // so that its callers end
		}
	}
	select {
	case <-finished:
	case <-time.After(patience):
		s.stuck("callers still wait long after the healing")
	}
	for _, p := range s.processes {
		p.close(s.truth)
	}
	s.end()
}

// patience is how long the callers may take after the healing.
const patience = 10 * time.Minute

// strike plans the faults.
func (s *simulation) strike() {
	r := s.random
	s.second = r.IntN(3) == 0
	count := pick(r, 0, 0, 1, 2, 4, 8)
	for range count {
		f := faults[r.IntN(len(faults))]
		own := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
		at := time.Duration(r.Int64N(int64(s.trouble)))
		if !f.second || s.second {
			s.net.at(at, func() { f.strike(s, own) })
		}
	}
	w := s.net.weather
	s.truth.troubled = count > 0 || w.delay > 2*calm.delay || w.cut+w.hole+w.stall+w.refused+w.spike > 0
	s.story.simple = !s.truth.troubled && len(s.keys) == 1
}

// heal ends all trouble. Dead connections are reset, or left for the library to
// find out.
func (s *simulation) heal() {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	s.net.weather = calm
	close(s.net.calmed)
	s.server.refusing = ""
	if s.server.frozen {
		s.server.thaw()
	}
	now := s.net.now()
	grace := time.Duration(0)
	if left := s.random.IntN(4) == 0; left {
		grace = 3*time.Second + 5*time.Second + s.scale // a read and a ping time out, and stalls end
	} else {
		s.cut(func(c *conn) bool {
			return !c.process.gone && (c.upDead || c.downDead || max(c.lastUp, c.lastDown) > now+calm.delay)
		})
		for _, c := range s.net.conns {
			if !c.process.gone && c.downDead {
				c.downDead = false
				c.end(errReset)
			}
		}
	}
	for _, p := range s.processes {
		p.side = s.server.master
	}
	if slices.ContainsFunc(s.net.conns, func(c *conn) bool { return !c.gone && c.side != s.server.master }) {
		grace = max(grace, 15*time.Second) // a probe comes every 10 s, with a ping
	}
	s.story.add("HEALED, in full after %v", grace)
	s.truth.healed = now + grace
	if s.random.IntN(3) == 0 {
		s.aftershocks()
	}
}

// aftershocks cut subscriptions, and maybe close a manager. Messages are lost by
// that, and all promises have to be kept without them.
func (s *simulation) aftershocks() {
	r := s.random
	own := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
	for range 2 + r.IntN(8) {
		s.net.at(s.truth.healed+upTo(r, 4*s.scale), func() {
			s.net.deaf = s.net.now() + upTo(own, s.scale/4)
			s.story.add("FAULT subscriptions are cut, and none is to be had until %s", seconds(s.net.deaf))
			s.cut(func(c *conn) bool { return len(c.subs) > 0 && own.IntN(3) == 0 })
		})
	}
	if p := pick(r, s.processes...); r.IntN(2) == 0 {
		s.net.at(s.truth.healed+time.Second+upTo(r, 2*s.scale), func() {
			if !p.gone && !p.closing {
				s.goroutines.Go(func() { p.close(s.truth) })
			}
		})
	}
}

// end checks what is left.
func (s *simulation) end() {
	s.goroutines.Wait()
	time.Sleep(calm.keepalive)
	s.net.mu.Lock()
	for _, k := range s.truth.keys {
		if k.owner == nil {
			s.truth.wasFree(k)
		}
	}
	s.truth.isClean()
	s.net.mu.Unlock()
	for _, p := range s.processes {
		_ = p.client.Close()
	}
	time.Sleep(25 * time.Hour)
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	for _, key := range s.server.store.keys() {
		alive := func(p *process) bool { return !p.gone }
		if key != fenceKey || slices.ContainsFunc(s.truth.fenceBy, alive) {
			s.story.violation("G9: %s is left in Redis after a day", key)
		}
	}
}

// stuck tells the story at once: the bubble cannot end.
func (s *simulation) stuck(what string) {
	s.net.mu.Lock()
	s.story.violation("G5: %s", what)
	fmt.Printf("%v\n%v\nreplay: %s\n", s.story, s.story.problems(), replay(s.seed))
	panic("stuck")
}

// replay is the command that runs a seed again.
func replay(seed uint64) string {
	return fmt.Sprintf("go test ./simulation -run TestSeeds -seed %d -v", seed)
}
