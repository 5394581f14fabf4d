package main

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/go-redsync/redsync/v4"
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

type redsyncProcess struct {
	client  *redis.Client
	redsync *redsync.Redsync
	options []redsync.Option
}

func openRedsync(addr string, ttl time.Duration, s settings) (peer, error) {
	client, commands, err := goRedis(addr, s)
	return &redsyncProcess{client, redsync.New(goredis.NewPool(commands)), []redsync.Option{
		redsync.WithExpiry(ttl),
		redsync.WithTries(math.MaxInt), // the caller's context ends the wait
		redsync.WithRetryDelay(s.poll),
	}}, err
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

func (p *redsyncProcess) Close() error { return p.client.Close() }
