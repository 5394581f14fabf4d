package main

import (
	"context"
	"time"

	bsm "github.com/bsm/redislock"
	"github.com/redis/go-redis/v9"
)

var bsmPeer = contender{
	name: "bsm/redislock", role: rival, polling: true,
	open:       openBsm,
	best:       bestPolling,
	why:        whyPolling,
	candidates: pollingCandidates,
	inRedis:    same,
}

type bsmProcess struct {
	client redis.UniversalClient
	locker *bsm.Client
	ttl    time.Duration
	retry  bsm.RetryStrategy
}

func openBsm(addrs []string, ttl time.Duration, s settings) (peer, error) {
	client, commands, err := goRedis(addrs, s)
	return &bsmProcess{client, bsm.New(commands), ttl, bsm.LinearBackoff(s.poll)}, err
}

func (p *bsmProcess) Acquire(ctx context.Context, key string) (func() error, error) {
	lock, err := p.locker.Obtain(ctx, key, p.ttl, &bsm.Options{RetryStrategy: p.retry})
	if err != nil {
		return nil, err
	}
	return func() error { return lock.Release(context.Background()) }, nil
}

func (p *bsmProcess) Close() error { return p.client.Close() }
