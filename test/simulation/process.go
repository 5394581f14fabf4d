package simulation

import (
	"context"
	"math/rand/v2"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/redislock/redislock"
)

// A process is one manager with a client of its own.
type process struct {
	name    string
	seed    uint64
	net     *network
	client  *redis.Client
	manager *redislock.LockManager
	id      string // of the manager in Redis, once it has subscribed
	dials   int

	listens time.Duration // since when, at last
	side    int           // to which the address of the server leads it

	gone    bool // its connections have ended, and its manager is not used any more
	closing bool // Close was called
	unclean bool // and returned an error
}

func (p *process) String() string { return p.name }

func startProcess(n *network, name string, r *rand.Rand, opts ...redislock.Option) *process {
	p := &process{name: name, net: n, seed: r.Uint64()}
	p.client = redis.NewClient(&redis.Options{
		Addr:                     "127.0.0.1:1", // an address, so that nothing is looked up
		Protocol:                 2 + r.IntN(2),
		Dialer:                   func(ctx context.Context, _, _ string) (net.Conn, error) { return n.dial(ctx, p) },
		ReadTimeout:              pick(r, 300*time.Millisecond, time.Second, 3*time.Second),
		DialerRetries:            1,   // as above: it waits in between
		PoolSize:                 100, // never to wait for a connection: the client keeps timers for that beyond a bubble
		PipelinePoolSize:         100,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	m, err := redislock.NewLockManager(p.client, opts...)
	if err != nil {
		panic(err)
	}
	p.manager = m
	return p
}

// vanish ends the process: its connections end, at once or when Redis notices.
// The manager goes on in the simulation, and reaches nobody.
func (p *process) vanish(noticed time.Duration) {
	n := p.net
	p.gone = true
	n.story.add("process %s is gone, Redis notices after %v", p, noticed)
	for _, c := range n.conns {
		if c.process == p && !c.gone {
			c.upDead, c.downDead = true, true
			c.end(errReset)
			n.at(max(n.now()+noticed, c.lastUp), c.cut)
		}
	}
}

// close closes the manager and checks how.
func (p *process) close(t *truth) {
	n := p.net
	n.mu.Lock()
	first := !p.closing
	p.closing = true
	n.story.add("%s closes", p)
	for _, a := range t.attempts {
		if a.process == p {
			t.touch(a.key)
		}
	}
	n.mu.Unlock()
	began := time.Now()
	err := p.manager.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.story.add("%s has closed: %v", p, err)
	p.unclean = p.unclean || first && err != nil
	if took := time.Since(began); took > closeLimit {
		n.story.violation("G9: Close of %s took %v", p, took)
	}
	for _, a := range t.attempts {
		if a.process == p && a.waiting {
			a.ended = true // its caller is about to be told
		}
		if a.process == p && a.queued && err == nil && t.calm(t.at(began)) && !t.excused(a) {
			n.story.violation("G9: %s stands in the line for %s after the Close of its manager", a, a.key.name)
		}
	}
}

// closeLimit is how long Close may take: the client's time-outs, several times.
const closeLimit = time.Minute

func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }
