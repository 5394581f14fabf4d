package main

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock"
)

var redislockPeer = contender{
	name: "redislock", role: ours,
	open:    openRedislock,
	best:    always(settings{}),
	why:     "There is nothing to tune.",
	inRedis: same,
}

type redislockProcess struct {
	client  redis.UniversalClient
	manager *redislock.LockManager
	ttl     time.Duration
}

func openRedislock(addrs []string, ttl time.Duration, s settings) (peer, error) {
	client, commands, err := goRedis(addrs, s)
	if err != nil {
		return nil, err
	}
	manager, err := redislock.NewLockManager(commands)
	if err != nil {
		return nil, err
	}
	return &redislockProcess{client, manager, ttl}, nil
}

func (p *redislockProcess) Acquire(ctx context.Context, key string) (func() error, error) {
	lock := p.manager.Lock(ctx, key, p.ttl)
	return lock.Unlock, lock.Wait().Err
}

func (p *redislockProcess) Park(ctx context.Context, key string) func() (func() error, error) {
	lock := p.manager.Lock(ctx, key, p.ttl)
	return func() (func() error, error) { return lock.Unlock, lock.Wait().Err }
}

func (p *redislockProcess) Keep(ctx context.Context, key string) (func() bool, func() error, error) {
	lock := p.manager.Lock(ctx, key, p.ttl, redislock.WithAutoRenew(time.Hour))
	return func() bool { return lock.Err() == nil }, lock.Unlock, lock.Wait().Err
}

func (p *redislockProcess) Close() error {
	return errors.Join(p.manager.Close(), p.client.Close())
}
