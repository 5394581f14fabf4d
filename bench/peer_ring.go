package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// What a handover from one process to another takes at least, if Redis is in
// between: the key goes round a ring. To release is to set the key to the next
// process's name and to tell that one, in one script; nobody asks for anything,
// nobody is waited for, nobody may fail.
var ringPeer = contender{
	name: "SET and PUBLISH, in a ring", role: floor, ring: true,
	open: openRing,
	best: func(u use) settings { return settings{ring: u.processes} },
	why:  "No lock: it shows what a handover through Redis takes at least.",
}

var passOn = redis.NewScript(`redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return redis.call('PUBLISH', ARGV[1], '')`)

type ringProcess struct {
	client redis.UniversalClient
	ttl    time.Duration
	next   string // its channel
	sub    *redis.PubSub
	turn   chan struct{} // it is this process's turn, and a caller is there
	waits  atomic.Int32
}

var inRing int // how many of the ring are open so far

// openRing is called for one after the other of a ring; the last begins.
func openRing(addrs []string, ttl time.Duration, s settings) (peer, error) {
	client, _, err := goRedis(addrs, s)
	if err != nil {
		return nil, err
	}
	i := inRing
	inRing = (inRing + 1) % s.ring
	channel := func(i int) string { return fmt.Sprint("ring:", i%s.ring) }
	p := &ringProcess{client: client, ttl: ttl, next: channel(i + 1), turn: make(chan struct{})}
	ctx := context.Background()
	p.sub = client.Subscribe(ctx, channel(i))
	if _, err := p.sub.Receive(ctx); err != nil {
		return nil, err
	}
	go p.listen(p.sub.Channel())
	if inRing == 0 {
		return p, p.pass()
	}
	return p, nil
}

func (p *ringProcess) listen(turns <-chan *redis.Message) {
	for range turns {
		if p.waits.Load() > 0 {
			p.turn <- struct{}{}
		} else if p.pass() != nil {
			return // closed
		}
	}
}

func (p *ringProcess) pass() error {
	return passOn.Run(context.Background(), p.client, []string{"key0"}, p.next, p.ttl.Milliseconds()).Err()
}

func (p *ringProcess) Acquire(ctx context.Context, _ string) (func() error, error) {
	p.waits.Add(1)
	defer p.waits.Add(-1)
	select {
	case <-p.turn:
		return p.pass, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *ringProcess) Close() error {
	_ = p.sub.Close()
	return p.client.Close()
}
