package redistest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Proxy stands between a client and a server and does to their connection what
// networks do.
type Proxy struct {
	Addr string

	// LoseReplies lets requests through to the server, and cuts the connection
	// in place of the next reply. It ends with that.
	LoseReplies atomic.Bool

	// Silent swallows everything, in both directions; connections stay open.
	Silent atomic.Bool

	// Replies is how many pieces of replies have come through.
	Replies atomic.Int64

	target   string
	listener net.Listener
	mu       sync.Mutex
	conns    map[net.Conn]bool
}

// StartProxy starts a proxy in front of the server, which ends with the test.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: listener.Addr().String(), target: target, listener: listener, conns: make(map[net.Conn]bool)}
	go p.accept()
	t.Cleanup(func() {
		listener.Close()
		p.Cut()
	})
	return p
}

// Cut resets all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		conn.Close()
	}
}

// accept ends when the listener is closed.
func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		go p.pass(server, client, false)
		go p.pass(client, server, true)
	}
}

// pass copies from one side to the other until either is closed.
func (p *Proxy) pass(to, from net.Conn, replies bool) {
	defer func() {
		to.Close()
		from.Close()
		p.mu.Lock()
		delete(p.conns, to)
		delete(p.conns, from)
		p.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if p.Silent.Load() {
			continue
		}
		if replies && p.LoseReplies.CompareAndSwap(true, false) {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil && err != io.EOF {
			return
		}
		if replies {
			p.Replies.Add(1)
		}
	}
}
