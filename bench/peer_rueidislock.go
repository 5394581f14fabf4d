package main

import (
	"context"
	"time"

	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidislock"
)

var rueidislockPeer = contender{
	name: "rueidislock", role: rival,
	open: openRueidislock,
	best: func(u use) settings {
		if u.callers > 1 && u.keys > 1 {
			return settings{next: time.Second, flush: 100 * time.Microsecond}
		}
		return settings{next: time.Second}
	},
	why: "With its default TryNextAfter, 20 ms, callers hang at 256 goroutines; 5 s is no faster than 1 s. " +
		"MaxFlushDelay helps with many keys, and costs three quarters of the speed with one.",
	candidates: []settings{
		{next: 20 * time.Millisecond}, {next: time.Second}, {next: 5 * time.Second},
		{next: time.Second, flush: 20 * time.Microsecond}, {next: time.Second, flush: 100 * time.Microsecond},
	},
	inRedis: func(key string) string { return "rueidislock:0:" + key },
}

type rueidislockProcess struct{ locker rueidislock.Locker }

func openRueidislock(addrs []string, ttl time.Duration, s settings) (peer, error) {
	locker, err := rueidislock.NewLocker(rueidislock.LockerOption{
		ClientOption:   rueidis.ClientOption{InitAddress: addrs, MaxFlushDelay: s.flush},
		KeyValidity:    ttl,
		ExtendInterval: ttl / 3, // as ours renews
		KeyMajority:    1,       // one server: one key
		NoLoopTracking: true,    // else its own extensions wake it up, 13,000 times a second
		TryNextAfter:   s.next,
	})
	if err != nil {
		return nil, err
	}
	return &rueidislockProcess{locker}, nil
}

func (p *rueidislockProcess) Acquire(ctx context.Context, key string) (func() error, error) {
	_, cancel, err := p.locker.WithContext(ctx, key)
	return func() error { cancel(); return nil }, err
}

func (p *rueidislockProcess) Keep(ctx context.Context, key string) (func() bool, func() error, error) {
	held, cancel, err := p.locker.WithContext(ctx, key)
	return func() bool { return held.Err() == nil }, func() error { cancel(); return nil }, err
}

func (p *rueidislockProcess) Close() error {
	p.locker.Close()
	return nil
}
