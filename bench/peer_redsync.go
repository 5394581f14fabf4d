package main

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/go-redsync/redsync/v4"
	redsyncredis "github.com/go-redsync/redsync/v4/redis"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
)

var redsyncPeer = contender{
	name: "redsync", role: rival, polling: true,
	open:       openRedsync,
	best:       bestPolling,
	why:        whyPolling,
	candidates: pollingCandidates,
	inRedis:    same,
}

// On a quorum, waiting for the answers of all servers, or for those of a majority.
// Those for whom it waits need time-outs, else one that hangs keeps it for seconds.
var (
	redsyncAll = contender{
		name: "redsync", role: rival, on: quorum, polling: true,
		open: openRedsyncQuorum,
		best: func(u use) settings { s := bestPolling(u); s.timeout = nodeTimeout; return s },
		why: "The time-outs are for whatever a server is asked, which is not repeated: the page on Redlock advises 5 to 50 ms. " +
			"Without them it waits for a server that hangs: see the last row of redsync.",
		candidates: eachWith(settings{timeout: nodeTimeout}),
		inRedis:    same,
	}
	redsyncFast = contender{
		name: "redsync, WithFailFast", role: rival, on: quorum, polling: true,
		open: openRedsyncQuorum,
		best: func(u use) settings { s := bestPolling(u); s.fast = true; return s },
		why: "A majority's answers are enough for it, so it needs no time-outs. It does not see to it that the delete comes after the SET " +
			"on the server that it did not wait for, where the key may stay until its TTL ends.",
		candidates: eachWith(settings{fast: true}),
		inRedis:    same,
	}
	redsyncDefault = contender{
		name: "redsync, go-redis' time-outs", role: variant, on: quorum, polling: true, slow: true,
		open:    openRedsyncQuorum,
		best:    bestPolling,
		why:     "As one has it who sets none: 5 s for an answer, and all is tried four times.",
		inRedis: same,
	}
)

// eachWith returns the settings that were tried for polling, on several servers.
func eachWith(s settings) (all []settings) {
	for _, s.pool = range []int{20, 64} {
		for _, s.poll = range []time.Duration{2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond} {
			all = append(all, s)
		}
	}
	return all
}

// nodeTimeout is how long to wait for one of several servers.
const nodeTimeout = 50 * time.Millisecond

type redsyncProcess struct {
	clients []redis.UniversalClient
	redsync *redsync.Redsync
	options []redsync.Option
}

func openRedsync(addrs []string, ttl time.Duration, s settings) (peer, error) {
	client, commands, err := goRedis(addrs, s)
	if err != nil {
		return nil, err
	}
	return newRedsync([]redis.UniversalClient{client}, redsync.New(goredis.NewPool(commands)), ttl, s), nil
}

func openRedsyncQuorum(addrs []string, ttl time.Duration, s settings) (peer, error) {
	clients := goRedisEach(addrs, s)
	var pools []redsyncredis.Pool
	for _, client := range clients {
		pools = append(pools, goredis.NewPool(client))
	}
	return newRedsync(clients, redsync.New(pools...), ttl, s), nil
}

func newRedsync(clients []redis.UniversalClient, r *redsync.Redsync, ttl time.Duration, s settings) *redsyncProcess {
	return &redsyncProcess{clients, r, []redsync.Option{
		redsync.WithExpiry(ttl),
		redsync.WithTries(math.MaxInt), // the caller's context ends the wait
		redsync.WithRetryDelay(s.poll),
		redsync.WithFailFast(s.fast),
	}}
}

func (p *redsyncProcess) Acquire(ctx context.Context, key string) (func() error, error) {
	mutex := p.redsync.NewMutex(key, p.options...)
	if err := mutex.LockContext(ctx); err != nil {
		return nil, err
	}
	return func() error {
		if ok, err := mutex.Unlock(); !ok {
			return errors.Join(errors.New("the lock was not held"), err)
		}
		return nil
	}, nil
}

func (p *redsyncProcess) Close() error { return closeEach(p.clients) }
