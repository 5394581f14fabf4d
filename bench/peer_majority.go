package main

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// The floor on several servers that know nothing of each other: SET NX PX on all at
// once, until a majority has said yes, and the owner-checked deletes likewise.
// Nothing is repeated. It takes what Redlock needs, and offers nothing else.
var rawQuorum = contender{
	name: "SET NX PX, on a majority", role: floor, on: quorum, polling: true,
	open: openMajority,
	best: bestPolling,
	why: "It leaves a server out that owes it 64 answers: else goroutines that wait for one that hangs would fill the memory. " +
		"A delete waits for the answer to its SET.",
	candidates: eachWith(settings{}),
	inRedis:    same,
}

type majorityProcess struct {
	clients []redis.UniversalClient
	ttl     time.Duration
	poll    time.Duration
	name    string
	seq     atomic.Int64
	owed    []chan struct{} // of each server: a place for each ballot under way
}

func openMajority(addrs []string, ttl time.Duration, s settings) (peer, error) {
	p := &majorityProcess{
		clients: goRedisEach(addrs, s), ttl: ttl, poll: s.poll, name: strconv.FormatInt(rawProcesses.Add(1), 36) + "-",
	}
	for range addrs {
		p.owed = append(p.owed, make(chan struct{}, 64))
	}
	return p, nil
}

// A ballot is one try for a key. Its value is no other's: a late delete of one try
// does not touch the next.
type ballot struct {
	key, value string
	answered   []chan struct{} // for each server, closed when it has answered the SET; nil if it is left out
}

// majority has ask ask all servers of the ballot at once, and returns as soon as it is
// certain whether a majority says yes.
func (b ballot) majority(ask func(i int) bool) bool {
	answers := make(chan bool, len(b.answered))
	for i, there := range b.answered {
		if there == nil {
			answers <- false
		} else {
			go func() { answers <- ask(i) }()
		}
	}
	yes, no, want := 0, 0, len(b.answered)/2+1
	for yes < want && no <= len(b.answered)-want {
		if <-answers {
			yes++
		} else {
			no++
		}
	}
	return yes >= want
}

func (p *majorityProcess) Acquire(ctx context.Context, key string) (func() error, error) {
	for {
		b := ballot{key, p.name + strconv.FormatInt(p.seq.Add(1), 36), make([]chan struct{}, len(p.clients))}
		for i := range p.clients {
			select {
			case p.owed[i] <- struct{}{}: // until the delete is answered
				b.answered[i] = make(chan struct{})
			default:
			}
		}
		if b.majority(func(i int) bool {
			defer close(b.answered[i])
			ok, err := p.clients[i].SetNX(ctx, key, b.value, p.ttl).Result()
			return err == nil && ok
		}) {
			return func() error { return p.release(b) }, nil
		}
		_ = p.release(b)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(p.poll):
		}
	}
}

// release deletes the key where it may be set. A delete does not overtake its SET.
func (p *majorityProcess) release(b ballot) error {
	if !b.majority(func(i int) bool {
		defer func() { <-p.owed[i] }()
		<-b.answered[i]
		n, err := ownerDelete.Run(context.Background(), p.clients[i], []string{b.key}, b.value).Int()
		return err == nil && n == 1
	}) {
		return errors.New("the lock was not held by a majority")
	}
	return nil
}

func (p *majorityProcess) Close() error { return closeEach(p.clients) }
