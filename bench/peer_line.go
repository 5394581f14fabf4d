package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// What one line for all processes takes at least: a request to stand in it, a script
// of two calls, and one to hand over, which checks the owner and draws a token for
// the next. A lease that ends frees the key for nobody, who has left is waited for
// until the end of time, and so is a message that was lost.
var linePeer = contender{
	name: "a bare line", role: floor, line: true,
	open: opensLine(bareLine),
	best: func(use) settings { return settings{pool: 64} },
	why:  "No lock: it shows what a line for all processes takes at least.",
}

var (
	standInLine = redis.NewScript(`
		if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
		redis.call('RPUSH', KEYS[2], ARGV[1])
		return 0`)
	handToNext = redis.NewScript(`
		if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('not the owner') end
		local next = redis.call('LPOP', KEYS[2])
		if not next then redis.call('DEL', KEYS[1]) return '' end
		redis.call('INCR', KEYS[3])
		redis.call('SET', KEYS[1], next, 'PX', ARGV[2])
		local process = string.match(next, '^[^:]*')
		if process ~= ARGV[3] then redis.call('PUBLISH', process, next) end
		return next`)
)

// lineRules are how a line is kept in Redis.
type lineRules struct {
	// stand puts a value into the line; or else it has the key.
	stand func(ctx context.Context, p *lineProcess, key, value string, seq int64) (held bool, err error)
	// hand gives the key to the next. own is his value, if he is of this process.
	hand func(ctx context.Context, p *lineProcess, key, value string) (own string, err error)
	// granted reads the value out of a message to the process.
	granted func(message string) string
}

var bareLine = lineRules{
	stand: func(ctx context.Context, p *lineProcess, key, value string, _ int64) (bool, error) {
		return standInLine.Run(ctx, p.client, []string{key, "line:" + key}, value, p.ttl.Milliseconds()).Bool()
	},
	hand: func(ctx context.Context, p *lineProcess, key, value string) (string, error) {
		next, err := handToNext.Run(ctx, p.client, []string{key, "line:" + key, "token"},
			value, p.ttl.Milliseconds(), p.name).Text()
		if !strings.HasPrefix(next, p.name+":") {
			next = ""
		}
		return next, err
	},
	granted: func(message string) string { return message },
}

type lineProcess struct {
	rules  lineRules
	client redis.UniversalClient
	ttl    time.Duration
	name   string // its channel
	sub    *redis.PubSub
	seq    atomic.Int64

	mu    sync.Mutex
	turns map[string]chan struct{} // by value: closed when it is the caller's turn
}

var inLine atomic.Int64

func opensLine(rules lineRules) func([]string, time.Duration, settings) (peer, error) {
	return func(addrs []string, ttl time.Duration, s settings) (peer, error) {
		client, _, err := goRedis(addrs, s)
		if err != nil {
			return nil, err
		}
		p := &lineProcess{
			rules: rules, client: client, ttl: ttl, name: fmt.Sprint("line-", inLine.Add(1)),
			turns: make(map[string]chan struct{}),
		}
		ctx := context.Background()
		p.sub = client.Subscribe(ctx, p.name)
		if _, err := p.sub.Receive(ctx); err != nil {
			return nil, err
		}
		turns := p.sub.Channel()
		go func() {
			for message := range turns {
				p.turn(rules.granted(message.Payload))
			}
		}()
		return p, nil
	}
}

func (p *lineProcess) Acquire(ctx context.Context, key string) (func() error, error) {
	seq := p.seq.Add(1)
	value := fmt.Sprintf("%s:%d", p.name, seq)
	turn := make(chan struct{})
	p.mu.Lock()
	p.turns[value] = turn
	p.mu.Unlock()
	held, err := p.rules.stand(ctx, p, key, value, seq)
	if err != nil {
		return nil, err
	}
	if held {
		p.turn(value)
	}
	select {
	case <-turn:
		return func() error { return p.release(key, value) }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *lineProcess) release(key, value string) error {
	next, err := p.rules.hand(context.Background(), p, key, value)
	if next != "" {
		p.turn(next)
	}
	return err
}

// turn lets the caller go on whose turn it is.
func (p *lineProcess) turn(value string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if turn := p.turns[value]; turn != nil {
		close(turn)
		delete(p.turns, value)
	}
}

func (p *lineProcess) Close() error {
	_ = p.sub.Close()
	return p.client.Close()
}
