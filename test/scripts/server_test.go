package scripts

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock/internal/redistest"
)

var ctx = context.Background()

// A server runs commands while its time stands still: keys live exactly as long
// as pass says. All times are in microseconds, TTLs in milliseconds.
type server struct {
	name   string
	client *redis.Client
	pubsub *redis.PubSub
	live   map[string]bool // channels subscribed to

	mini  *miniredis.Miniredis // or nil: a redis-server
	clock int64                // of miniredis

	// A redis-server's time does not stand still, so between calls its keys are
	// without a TTL. The transaction that runs a call puts on, first, what each
	// key has left, and at the end reads it and takes it off. The call sees keys
	// with the TTLs that they should have, to within the run time of the
	// transaction, and keys whose time is over have really expired.
	left map[string]int64
}

// An answer is what became of a call.
type answer struct {
	replies      []any // of each command; an error where it failed
	messages     []message
	state        state // all keys, after the call
	began, ended int64 // between these, on the server's clock
	took         int64 // µs, on ours: no less than between any two moments at the server
}

type message struct{ channel, text string }

// slack is how many milliseconds a TTL may have lost while the call ran.
func (a answer) slack() int64 { return a.took/1000 + 2 }

func startServers(t *testing.T) [2]*server {
	mini := miniredis.RunT(t)
	servers := [2]*server{
		{name: "miniredis", mini: mini, client: redis.NewClient(&redis.Options{Addr: mini.Addr(), MaxRetries: -1})},
		{name: "redis", client: redistest.Start(t).Client(func(o *redis.Options) { o.MaxRetries = -1 })},
	}
	for _, s := range servers {
		s.pubsub = s.client.Subscribe(ctx)
		s.live = make(map[string]bool)
		s.subscribe(t, barrier, true)
		t.Cleanup(func() {
			s.pubsub.Close()
			s.client.Close()
		})
	}
	return servers
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

// barrier is a channel whose messages tell that all earlier ones have come.
const barrier = "barrier"

// subscribe has the server find, or not find, a listener on the channel.
func (s *server) subscribe(t fataler, channel string, on bool) {
	t.Helper()
	if s.live[channel] == on {
		return
	}
	change := s.pubsub.Unsubscribe
	if on {
		change = s.pubsub.Subscribe
	}
	if err := change(ctx, channel); err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	if msg, err := s.pubsub.ReceiveTimeout(ctx, 5*time.Second); err != nil {
		t.Fatalf("%s: subscription: %v", s.name, err)
	} else if _, ok := msg.(*redis.Subscription); !ok {
		t.Fatalf("%s: a message that nobody waited for: %v", s.name, msg)
	}
	s.live[channel] = on
}

// reset empties the server.
func (s *server) reset(t fataler) {
	t.Helper()
	if err := s.client.FlushAll(ctx).Err(); err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	for channel, on := range s.live {
		if on && channel != barrier {
			s.subscribe(t, channel, false)
		}
	}
	s.clock = time.Now().UnixMicro()
	s.left = nil
}

// snapshot replies {key, type, TTL in ms, content...} of all keys. With ARGV[1]
// it takes the TTLs off.
const snapshot = `
local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  local content = {}
  if kind == 'string' then
    content = {redis.call('GET', key)}
  elseif kind == 'zset' then
    content = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'list' then
    content = redis.call('LRANGE', key, 0, -1)
  end
  all[#all + 1] = {key, kind, redis.call('PTTL', key), content}
  if ARGV[1] == '1' then
    redis.call('PERSIST', key)
  end
end
return all`

// call runs the commands at one moment of the server's time.
func (s *server) call(t fataler, commands ...[]any) (a answer) {
	t.Helper()
	pipe, persist := s.client.TxPipeline(), "1"
	if s.mini != nil {
		pipe, persist = s.client.Pipeline(), "0"
		s.mini.SetTime(time.UnixMicro(s.clock))
	}
	began := pipe.Time(ctx)
	for key, left := range s.left {
		pipe.Do(ctx, "pexpire", key, max(left, 2)) // 1 may be none at all
	}
	var cmds []*redis.Cmd
	for _, command := range commands {
		cmds = append(cmds, pipe.Do(ctx, command...))
	}
	dump := pipe.Do(ctx, "eval", snapshot, 0, persist)
	ended := pipe.Time(ctx)
	sent := time.Now()
	_, _ = pipe.Exec(ctx) // the commands have the errors
	a.took = time.Since(sent).Microseconds()

	for _, cmd := range cmds {
		reply, err := cmd.Result()
		switch {
		case err == redis.Nil:
			reply = nil
		case err != nil:
			reply = err
		}
		a.replies = append(a.replies, reply)
	}
	var err error
	if a.state, err = readState(dump); err != nil || began.Err() != nil || ended.Err() != nil {
		t.Fatalf("%s: %v, %v, %v", s.name, err, began.Err(), ended.Err())
	}
	a.began, a.ended = began.Val().UnixMicro(), ended.Val().UnixMicro()
	a.messages = s.messages(t)
	return a
}

// messages returns what has been published to those who listen.
func (s *server) messages(t fataler) (all []message) {
	t.Helper()
	if err := s.client.Publish(ctx, barrier, "").Err(); err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	for {
		received, err := s.pubsub.ReceiveTimeout(ctx, 5*time.Second)
		msg, ok := received.(*redis.Message)
		if err != nil || !ok {
			t.Fatalf("%s: messages: %v, %v", s.name, received, err)
			return nil
		}
		if msg.Channel == barrier {
			return all
		}
		all = append(all, message{msg.Channel, msg.Payload})
	}
}

// hold sets how long each key has left, from now on.
func (s *server) hold(st state) {
	if s.mini != nil {
		return // it knows
	}
	s.left = make(map[string]int64)
	for key, e := range st {
		if e.ttl >= 0 {
			s.left[key] = e.ttl
		}
	}
}

// pass lets d milliseconds go by for the keys.
func (s *server) pass(t fataler, d int64) {
	t.Helper()
	if s.mini != nil {
		s.mini.FastForward(time.Duration(d) * time.Millisecond)
		return
	}
	over := false
	for key, left := range s.left {
		if left > d {
			s.left[key] = left - d
			continue
		}
		// Left alone from here on, so that the next call finds a key that is
		// there and has expired. Its DEL would find nothing.
		over = true
		delete(s.left, key)
		if err := s.client.PExpire(ctx, key, time.Millisecond).Err(); err != nil {
			t.Fatalf("%v", err)
		}
	}
	// "Not before": the server's clock shows whole milliseconds to keys.
	for start := s.now(t); over && s.now(t) < start+2100; {
		time.Sleep(time.Millisecond)
	}
}

func (s *server) now(t fataler) int64 {
	t.Helper()
	now, err := s.client.Time(ctx).Result()
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	return now.UnixMicro()
}

// A state is all that a server holds.
type state map[string]entry

type entry struct {
	kind string   // as TYPE says
	text []string // of a string or list
	zset []scored // in the order of the server
	ttl  int64    // -1: none
}

// number is what a string holds that is one.
func (e entry) number() (int64, bool) {
	if e.kind != "string" {
		return 0, false
	}
	n, err := strconv.ParseInt(e.text[0], 10, 64)
	return n, err == nil
}

// isStamp tells times of a server's clock from numbers that are not.
func isStamp(n int64) bool { return n > 1e14 }

func (e entry) stamped() bool {
	n, ok := e.number()
	return ok && isStamp(n)
}

type scored struct {
	member string
	score  int64
}

func readState(cmd *redis.Cmd) (state, error) {
	all, err := cmd.Slice()
	if err != nil {
		return nil, err
	}
	st := make(state)
	for _, one := range all {
		fields := one.([]any)
		content := fields[3].([]any)
		e := entry{kind: fields[1].(string), ttl: fields[2].(int64)}
		if e.kind != "zset" {
			for _, text := range content {
				e.text = append(e.text, text.(string))
			}
		} else {
			for pair := range slices.Chunk(content, 2) {
				var score float64
				if _, err := fmt.Sscan(pair[1].(string), &score); err != nil {
					return nil, err
				}
				e.zset = append(e.zset, scored{pair[0].(string), int64(score)})
			}
		}
		st[fields[0].(string)] = e
	}
	return st, nil
}
