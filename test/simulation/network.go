package simulation

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A network carries requests to the server and replies back, in fake time. It
// decides how long each takes, and what becomes of it. Every delay has a random
// number of nanoseconds, so that hardly ever two things happen at one instant:
// order then comes from the seed alone, not from the scheduler.
//
// Its mutex guards everything in the simulation but the library itself. The
// checks, which run under it, may call the library: that never calls the network
// with a mutex of its own held.
type network struct {
	mu      sync.Mutex
	start   time.Time
	server  *server
	weather weather
	calmed  chan struct{} // closed by the healing: no dial takes long any more
	deaf    time.Duration // until then, no subscription is to be had
	conns   []*conn
	story   *story
}

// weather is how likely it is that something befalls a message.
type weather struct {
	delay     time.Duration // the usual one, at most
	spike     float64       // a delay up to longest
	longest   time.Duration
	cut       float64 // the connection ends, before or after the request is run
	hole      float64 // the connection goes silent, one way or both, and stays open
	stall     float64 // the connection stands still for up to longest, then delivers
	refused   float64 // a dial is refused
	trickle   float64 // the commands of a pipeline arrive one by one
	keepalive time.Duration
}

// now returns the time since the simulation began.
func (n *network) now() time.Duration { return time.Since(n.start) }

// at has f done at a time, under the mutex.
func (n *network) at(t time.Duration, f func()) {
	time.AfterFunc(t-n.now(), func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		f()
	})
}

func (w *weather) draw(r *rand.Rand) time.Duration {
	d := w.delay/10 + time.Duration(r.Int64N(int64(w.delay)))
	if r.Float64() < w.spike {
		d += time.Duration(r.Int64N(int64(w.longest)))
	}
	return d
}

// dial connects a process. For subscriptions that takes no time, nor does their
// greeting: the client's PubSub dials with a mutex held, and while somebody waits
// for a mutex, no fake time passes.
func (n *network) dial(ctx context.Context, p *process) (net.Conn, error) {
	instant := ofSubscription()
	n.mu.Lock()
	p.dials++
	c := &conn{
		net: n, process: p, name: p.name + "-" + strconv.Itoa(p.dials),
		random: rand.New(rand.NewPCG(p.seed, uint64(p.dials))),
		wake:   make(chan struct{}, 1),
		subs:   make(map[string]bool),

		greeted: !instant,
	}
	wait := 2 * n.weather.draw(c.random)
	refused := p.gone || instant && n.now() < n.deaf || c.random.Float64() < n.weather.refused
	n.mu.Unlock()

	var err error
	if !instant {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-n.calmed:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil && (refused || p.gone) {
		err = syscall.ECONNREFUSED
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	c.side = p.side
	n.conns = append(n.conns, c)
	return c, nil
}

// ofSubscription tells whether the caller is a PubSub of the client.
func ofSubscription() bool {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		frame, more := frames.Next()
		if strings.Contains(frame.Function, "(*PubSub).") {
			return true
		}
		if !more {
			return false
		}
	}
}

// parseCommand takes one command off the bytes that a client wrote, or none if
// the last is not complete yet.
func parseCommand(p []byte) (args []string, rest []byte) {
	line := func(prefix byte) int {
		end := bytes.Index(p, []byte("\r\n"))
		if end < 0 {
			return -1
		}
		if p[0] != prefix {
			panic("the client wrote " + strconv.Quote(string(p)))
		}
		k, err := strconv.Atoi(string(p[1:end]))
		if err != nil {
			panic(err)
		}
		p = p[end+2:]
		return k
	}
	count := line('*')
	for range count {
		k := line('$')
		if k < 0 || len(p) < k+2 {
			return nil, nil
		}
		args = append(args, string(p[:k]))
		p = p[k+2:]
	}
	return args, p
}
