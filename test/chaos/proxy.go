package main

import (
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// A proxy stands between one worker and Redis and does to their connections what
// networks do. What it does to a connection stays within what TCP can do: bytes
// arrive in order, late, or never, but none is missing between two others.
type proxy struct {
	addr     string
	target   string
	listener net.Listener

	mu    sync.Mutex
	rng   *rand.Rand
	pipes map[*pipe]bool
	now   weather
}

// leadTo has connections led to another server from now on.
func (p *proxy) leadTo(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// proxies are those of one worker, by the addresses that it knows.
type proxies map[string]*proxy

func startProxies(addrs map[string]string, seed uint64) (proxies, error) {
	all := make(proxies)
	for addr, target := range addrs {
		p, err := startProxy(target, seed)
		if err != nil {
			all.close()
			return nil, err
		}
		all[addr] = p
	}
	return all, nil
}

// addrs tells where a worker has to connect to.
func (all proxies) addrs() map[string]string {
	addrs := make(map[string]string)
	for addr, p := range all {
		addrs[addr] = p.addr
	}
	return addrs
}

func (all proxies) set(w weather) {
	for _, p := range all {
		p.set(w)
	}
}

// forAWhile has the weather change, and be fair again after that time.
func forAWhile[P interface{ set(weather) }](hit []P, w weather, while time.Duration) {
	for _, one := range hit {
		one.set(w)
	}
	time.Sleep(while)
	for _, one := range hit {
		one.set(weather{})
	}
}

func (all proxies) heal() {
	for _, p := range all {
		p.heal()
	}
}

func (all proxies) reset() {
	for _, p := range all {
		p.reset()
	}
}

func (all proxies) close() {
	for _, p := range all {
		p.close()
	}
}

// weather is what the network is like.
type weather struct {
	delay, jitter time.Duration // of each piece of data, in each direction
	dropRequests  bool          // nothing arrives at the server any more
	dropReplies   bool          // nothing arrives at the client any more
	refuse        bool          // no new connections
	loseReply     float64       // probability that a connection is cut instead of passing a reply
}

// A pipe is one direction of one connection.
type pipe struct {
	from, to  *net.TCPConn
	replies   bool
	parcels   chan parcel
	held      []parcel // sent while the network dropped everything
	dead      bool     // something was dropped: nothing may follow
	forgotten bool     // by forget
}

type parcel struct {
	data []byte
	due  time.Time
}

func startProxy(target string, seed uint64) (*proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{
		addr: listener.Addr().String(), target: target, listener: listener,
		rng: rand.New(rand.NewPCG(seed, 1)), pipes: make(map[*pipe]bool),
	}
	go p.accept()
	return p, nil
}

// set changes the weather. With the end of a black hole, half the connections
// get what was kept from them, late, as TCP would retransmit it; the others stay
// silent for ever, as after a router forgot them.
func (p *proxy) set(w weather) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = w
	for one := range p.pipes {
		if len(one.held) == 0 || one.dead || one.replies && w.dropReplies || !one.replies && w.dropRequests {
			continue
		}
		if p.rng.IntN(2) == 0 {
			one.dead = true
			continue
		}
		for _, parcel := range one.held {
			select {
			case one.parcels <- parcel:
			default:
				one.dead = true
			}
		}
		one.held = nil
	}
}

// reset breaks all connections, as a firewall or a crash of the peer does.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for one := range p.pipes {
		one.cut()
	}
}

func (one *pipe) cut() {
	_ = one.from.SetLinger(0)
	one.from.Close()
}

// forget has all connections go silent, in both directions, and stay open.
func (p *proxy) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for one := range p.pipes {
		one.dead, one.forgotten = true, true
	}
}

// heal makes the weather fair, and breaks the connections that were forgotten.
func (p *proxy) heal() {
	p.set(weather{})
	p.mu.Lock()
	defer p.mu.Unlock()
	for one := range p.pipes {
		if one.forgotten {
			one.cut()
		}
	}
}

func (p *proxy) close() {
	p.listener.Close()
	p.reset()
}

// accept ends when the listener is closed.
func (p *proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		refuse, target := p.now.refuse, p.target
		p.mu.Unlock()
		server, err := net.DialTimeout("tcp", target, time.Second)
		if err != nil || refuse {
			conn.Close()
			if err == nil {
				server.Close()
			}
			continue
		}
		p.connect(conn.(*net.TCPConn), server.(*net.TCPConn))
	}
}

func (p *proxy) connect(client, server *net.TCPConn) {
	requests := &pipe{from: client, to: server, parcels: make(chan parcel, 1<<14)}
	replies := &pipe{from: server, to: client, parcels: make(chan parcel, 1<<14), replies: true}
	p.mu.Lock()
	p.pipes[requests], p.pipes[replies] = true, true
	p.mu.Unlock()
	for _, one := range []*pipe{requests, replies} {
		go p.take(one)
		go one.deliver()
	}
}

// take reads until either side is closed, and decides what becomes of each piece.
func (p *proxy) take(one *pipe) {
	defer func() {
		p.mu.Lock()
		delete(p.pipes, one)
		close(one.parcels)
		p.mu.Unlock()
	}()
	for {
		buf := make([]byte, 32<<10)
		n, err := one.from.Read(buf)
		if err != nil {
			return
		}
		if !p.pass(one, buf[:n]) {
			_ = one.to.SetLinger(0)
			one.to.Close()
			return
		}
	}
}

// pass tells whether the connection lives on.
func (p *proxy) pass(one *pipe, data []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one.replies && p.rng.Float64() < p.now.loseReply {
		return false
	}
	late := p.now.delay
	if p.now.jitter > 0 {
		late += rand.N(p.now.jitter)
	}
	piece := parcel{data, time.Now().Add(late)}
	switch {
	case one.dead:
	case len(one.held) > 0, one.replies && p.now.dropReplies, !one.replies && p.now.dropRequests:
		one.held = append(one.held, piece)
	default:
		one.parcels <- piece
	}
	return true
}

// deliver ends when take does.
func (one *pipe) deliver() {
	defer one.to.Close()
	for parcel := range one.parcels {
		time.Sleep(time.Until(parcel.due))
		if _, err := one.to.Write(parcel.data); err != nil {
			one.from.Close()
		}
	}
}
