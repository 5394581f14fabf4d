package simulation

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A conn is one connection. Messages in one direction keep their order.
type conn struct {
	net     *network
	process *process
	name    string
	random  *rand.Rand

	// The client's end.
	closed     bool
	broken     error // what the client finds when it has read all
	buffer     []byte
	deadline   time.Time
	wake       chan struct{}
	unparsed   []byte
	unanswered [][]string // commands

	// The way.
	upDead, downDead bool // swallows everything
	lastUp, lastDown time.Duration

	// The server's end.
	side    int // of the two that take turns as the master
	gone    bool
	greeted bool
	resp3   bool
	subs    map[string]bool
}

// A mishap is what befalls a connection once a command has been run.
type mishap int

const (
	nothing mishap = iota
	replyCut
	replyLost
)

var errReset = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}

func (c *conn) Write(p []byte) (int, error) {
	n := c.net
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case c.broken != nil:
		return 0, c.broken
	}
	c.unparsed = append(c.unparsed, p...)
	first := true
	for {
		args, rest := parseCommand(c.unparsed)
		if args == nil {
			return len(p), nil
		}
		c.unparsed = rest
		if !c.greeted {
			c.greeted = true
			c.buffer = encode(c.buffer, n.server.execute(c, args), c.resp3)
			c.notify()
			continue
		}
		c.request(args, first)
		first = false
	}
}

// request sends one command on its way.
func (c *conn) request(args []string, first bool) {
	n, w := c.net, &c.net.weather
	c.unanswered = append(c.unanswered, args)
	if c.upDead {
		n.story.add("%v: %v is swallowed", c, command(args))
		return
	}
	t := max(n.now(), c.lastUp)
	if first || c.random.Float64() < w.trickle {
		t = max(n.now()+w.draw(c.random), c.lastUp)
	}
	if c.random.Float64() < w.stall {
		stall := time.Duration(c.random.Int64N(int64(w.longest)))
		n.story.add("%v stands still for %v", c, stall)
		t += stall
	}
	c.lastUp = t + 1
	after := nothing
	lost := func(format string) { n.story.add(format, c, command(args)) }
	switch {
	case c.random.Float64() < w.cut:
		if c.random.IntN(2) == 0 {
			lost("%v is cut before %v arrives")
			c.upDead = true
			n.at(t, c.cut)
			return
		}
		after = replyCut
	case c.random.Float64() < w.hole:
		switch c.random.IntN(3) {
		case 0:
			lost("%v goes silent before %v")
			c.upDead = true
			return
		case 1:
			lost("%v goes silent both ways before %v")
			c.upDead, c.downDead = true, true
			return
		}
		after = replyLost
	}
	n.at(t, func() { n.server.arrive(c, args, after) })
}

// reply sends bytes back: the answer to a command, or else a message. got, if
// there is one, is called when they are there.
func (c *conn) reply(p []byte, answers bool, got func()) {
	n := c.net
	t := max(n.now()+n.weather.draw(c.random), c.lastDown)
	c.lastDown = t + 1
	n.at(t, func() {
		if !c.downDead && !c.closed && c.broken == nil {
			c.buffer = append(c.buffer, p...)
			c.notify()
			if answers {
				c.unanswered = c.unanswered[1:]
			}
			if got != nil {
				got()
			}
		}
	})
}

// push is reply for messages, which have mishaps of their own.
func (c *conn) push(p []byte) {
	n, w := c.net, &c.net.weather
	switch r := c.random.Float64(); {
	case r < w.cut:
		n.story.add("%v is cut as a message is on its way", c)
		c.cut()
	case r < w.cut+w.hole:
		n.story.add("%v goes silent as a message is on its way", c)
		c.downDead = true
	case r < w.cut+w.hole+w.stall:
		stall := time.Duration(c.random.Int64N(int64(w.longest)))
		n.story.add("%v holds back messages for %v", c, stall)
		c.lastDown = max(n.now(), c.lastDown) + stall
	}
	c.reply(p, false, nil)
}

// cut ends the connection at the server, and soon after at the client, unless
// that hears nothing.
func (c *conn) cut() {
	if c.gone {
		return
	}
	c.gone = true
	clear(c.subs)
	n := c.net
	n.at(n.now()+n.weather.draw(c.random), func() {
		if !c.downDead {
			c.end(errReset)
		}
	})
}

// end lets the client find out that the connection is over.
func (c *conn) end(err error) {
	if c.broken == nil {
		c.broken = err
	}
	c.notify()
}

func (c *conn) notify() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *conn) Read(p []byte) (int, error) {
	for {
		c.net.mu.Lock()
		k := copy(p, c.buffer)
		c.buffer = c.buffer[k:]
		closed, broken, deadline := c.closed, c.broken, c.deadline
		c.net.mu.Unlock()
		wait := time.Until(deadline)
		switch {
		case k > 0:
			return k, nil
		case closed:
			return 0, net.ErrClosed
		case broken != nil:
			return 0, broken
		case deadline.IsZero():
			<-c.wake
			continue
		case wait <= 0:
			return 0, os.ErrDeadlineExceeded
		}
		timer := time.NewTimer(wait)
		select {
		case <-c.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Close ends the connection at the client. What it has sent still arrives, in
// its own time, and is run; nobody takes in the reply.
func (c *conn) Close() error {
	n := c.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	c.notify()
	for _, args := range c.unanswered {
		n.server.truth.doubt(args)
	}
	t := max(n.now()+n.weather.delay, c.lastUp)
	if c.upDead {
		t += n.weather.keepalive
	}
	n.at(t, c.cut)
	return nil
}

func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *conn) SetReadDeadline(t time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.deadline = t
	c.notify()
	return nil
}

func (c *conn) SetWriteDeadline(time.Time) error { return nil }
func (c *conn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *conn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *conn) String() string                   { return c.name }

// SyscallConn lets the client's pool see whether the connection has ended, which
// it asks the operating system: real sockets stand in, one for each answer.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	switch s := sockets(); {
	case len(c.buffer) > 0:
		return s.readable, nil
	case c.broken != nil || c.closed:
		return s.ended, nil
	default:
		return s.idle, nil
	}
}

type socket int

func (s socket) Read(f func(fd uintptr) bool) error { f(uintptr(s)); return nil }
func (s socket) Write(func(fd uintptr) bool) error  { return errors.ErrUnsupported }
func (s socket) Control(func(fd uintptr)) error     { return errors.ErrUnsupported }

var sockets = sync.OnceValue(func() (s struct{ idle, ended, readable socket }) {
	pair := func() [2]int {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			panic(err)
		}
		return fds
	}
	idle, ended, readable := pair(), pair(), pair()
	if err := syscall.Close(ended[1]); err != nil {
		panic(err)
	}
	if _, err := syscall.Write(readable[1], []byte("-")); err != nil {
		panic(err)
	}
	s.idle, s.ended, s.readable = socket(idle[0]), socket(ended[0]), socket(readable[0])
	return s
})
