package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A peer is a library as one process uses it: with a client and connections of
// its own.
type peer interface {
	// Acquire returns when the lock on the key is held, or when ctx ends. release
	// returns when it is released.
	Acquire(ctx context.Context, key string) (release func() error, err error)
	Close() error
}

// A parker can have callers wait without a goroutine each.
type parker interface {
	// Park returns at once; wait is Acquire's second half.
	Park(ctx context.Context, key string) (wait func() (release func() error, err error))
}

// A keeper can hold locks that it renews by itself.
type keeper interface {
	// Keep acquires the key for as long as it is not released.
	Keep(ctx context.Context, key string) (held func() bool, release func() error, err error)
}

// A role says what a row of the tables may be compared with.
type role string

const (
	ours    role = "ours"
	rival   role = "peer"
	variant role = "variant" // a peer in a way that its documentation does not mention
	floor   role = "floor"   // no lock that one would use, but what a lock cannot be much faster than
)

// A contender is a library, or the floor, and how to open it at its best.
type contender struct {
	name    string
	role    role
	polling bool // waiters try again and again

	uncontended bool // takes part only where callers do not wait for each other
	line        bool // takes part only where all callers want one key
	ring        bool // takes part only where one key goes from process to process

	on      topology // where it takes part
	slow    bool     // takes part only where one caller meets a fault, in one round: it takes seconds
	lingers bool     // when a peer is closed, a goroutine of it sleeps on for 5 s, which does no harm

	open       func(addrs []string, ttl time.Duration, s settings) (peer, error)
	best       func(u use) settings // the fastest that neither hangs nor fails
	why        string               // what was found with others
	candidates []settings           // what was tried: see -trial
	inRedis    func(key string) string
}

// A use is what peers are opened for; the best settings depend on it.
type use struct {
	processes int // that is: peers, each with its own client
	callers   int // over all processes
	keys      int
	ttl       time.Duration
	parked    bool // waiting, not working
}

// contended tells whether callers wait for each other.
func (u use) contended() bool { return u.keys < u.callers }

// settings are what can be chosen about a peer. Zero is its default.
type settings struct {
	pool  int           // connections of go-redis
	poll  time.Duration // between tries for a key that is taken
	auto  bool          // through go-redis' AutoPipeline
	flush time.Duration // rueidis: delay of a flush, so that it holds more
	next  time.Duration // rueidislock: an attempt's time-out
	token bool          // the floor: draws one
	ring  int           // the ring's length

	timeout time.Duration // go-redis' for one of several servers, without retries
	fast    bool          // redsync: WithFailFast, a majority's answers are enough
}

func (s settings) String() string {
	var parts []string
	add := func(is bool, format string, a ...any) {
		if is {
			parts = append(parts, fmt.Sprintf(format, a...))
		}
	}
	add(s.auto, "AutoPipeline")
	add(s.pool > 0, "pool of %d", s.pool)
	add(s.poll > 0, "polls every %v", s.poll)
	add(s.flush > 0, "MaxFlushDelay %v", s.flush)
	add(s.next > 0, "TryNextAfter %v", s.next)
	add(s.timeout > 0, "time-outs of %v", s.timeout)
	add(s.fast, "WithFailFast")
	if parts == nil {
		return "defaults"
	}
	return strings.Join(parts, ", ")
}

// contenders are all that take part on a single server, ours first.
func contenders() []contender {
	return []contender{
		redislockPeer, redsyncPeer, bsmPeer, rueidislockPeer,
		onAutoPipeline(redsyncPeer, variant), onAutoPipeline(bsmPeer, variant),
		rawPeer, tokenPeer, onAutoPipeline(rawPeer, floor),
		onAutoPipeline(tokenPeer, floor), linePeer, scriptsPeer, ringPeer,
	}
}

// onAutoPipeline returns the contender as it is when its commands go through
// go-redis' AutoPipeline, which merges what many goroutines send.
func onAutoPipeline(c contender, as role) contender {
	best := c.best
	c.name += ", AutoPipeline"
	c.role, c.uncontended = as, true
	c.best = func(u use) settings {
		s := best(u)
		s.pool, s.auto = 0, true
		return s
	}
	c.candidates = []settings{{auto: true, poll: 5 * time.Millisecond}}
	c.why = "go-redis calls it experimental; it repeats whole batches by itself, and drops what each command's context says."
	return c
}

// everywhere are the contenders on all topologies.
func everywhere() []contender {
	return slices.Concat(contenders(), onQuorum(), onCluster())
}

// trials are the contenders once for each of the settings that were considered.
func trials() (all []contender) {
	for _, c := range everywhere() {
		for _, s := range c.candidates {
			trial := c
			trial.name = c.name + ": " + s.String()
			trial.best = always(s)
			all = append(all, trial)
		}
	}
	return all
}

func always(s settings) func(use) settings { return func(use) settings { return s } }

func same(key string) string { return key }

// goRedis returns a client of go-redis, and what to send commands through, as the
// settings have it. Several addresses are those of a cluster.
func goRedis(addrs []string, s settings) (client, commands redis.UniversalClient, err error) {
	if len(addrs) > 1 {
		client = redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, PoolSize: s.pool})
		return client, client, nil
	}
	one := redis.NewClient(&redis.Options{Addr: addrs[0], PoolSize: s.pool})
	if !s.auto {
		return one, one, nil
	}
	pipeline, err := one.AutoPipeline()
	return one, pipeline, err
}
