package main

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// The floor: SET NX PX, and a delete that checks the owner. It takes just what a
// lock needs to be right, and offers nothing else.
var rawPeer = contender{
	name: "SET NX PX", role: floor, polling: true,
	open:       openRaw,
	best:       bestPolling,
	why:        whyPolling,
	candidates: pollingCandidates,
	inRedis:    same,
}

// The same with a fencing token, which travels in the same pipeline: what a lock
// with tokens cannot be much faster than.
var tokenPeer = contender{
	name: "SET NX PX and INCR", role: floor, uncontended: true,
	open:    openRaw,
	best:    func(u use) settings { s := bestPolling(u); s.token = true; return s },
	why:     whyPolling,
	inRedis: same,
}

var ownerDelete = redis.NewScript(
	`if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`)

type rawProcess struct {
	client   redis.UniversalClient
	commands redis.Cmdable
	settings settings
	ttl      time.Duration
	name     string
	seq      atomic.Int64
}

var rawProcesses atomic.Int64

func openRaw(addrs []string, ttl time.Duration, s settings) (peer, error) {
	client, commands, err := goRedis(addrs, s)
	if one, ok := client.(*redis.Client); ok && s.auto && s.token {
		commands, err = one.AsyncAutoPipeline() // on which one caller can have two commands under way
	}
	return &rawProcess{
		client: client, commands: commands, settings: s, ttl: ttl,
		name: strconv.FormatInt(rawProcesses.Add(1), 36) + "-",
	}, err
}

func (p *rawProcess) Acquire(ctx context.Context, key string) (func() error, error) {
	value := p.name + strconv.FormatInt(p.seq.Add(1), 36)
	for {
		ok, err := p.set(ctx, key, value)
		if err != nil {
			return nil, err
		}
		if ok {
			return func() error { return p.release(key, value) }, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(p.settings.poll):
		}
	}
}

func (p *rawProcess) set(ctx context.Context, key, value string) (bool, error) {
	if !p.settings.token {
		return p.commands.SetNX(ctx, key, value, p.ttl).Result()
	}
	if auto, ok := p.commands.(*redis.AutoPipeliner); ok {
		set := redis.NewBoolCmd(ctx, "set", key, value, "px", p.ttl.Milliseconds(), "nx")
		done := auto.Submit(ctx, set)
		err := errors.Join(auto.Submit(ctx, redis.NewIntCmd(ctx, "incr", "token")).Wait(), done.Wait())
		return set.Val(), err
	}
	pipe := p.commands.Pipeline()
	set := pipe.SetNX(ctx, key, value, p.ttl)
	pipe.Incr(ctx, "token")
	_, err := pipe.Exec(ctx)
	return set.Val(), err
}

func (p *rawProcess) release(key, value string) error {
	n, err := ownerDelete.Run(context.Background(), p.commands, []string{key}, value).Int()
	if err == nil && n == 0 {
		err = errors.New("the lock was not held")
	}
	return err
}

func (p *rawProcess) Close() error { return p.client.Close() }
