package aof_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
	"github.com/redislock/redislock/test/aof"
)

var ctx = context.Background()

// recorded starts a redis-server that keeps the history, and returns its folder.
func recorded(t *testing.T, args ...string) (server *redistest.Server, dir string) {
	dir = t.TempDir()
	return redistest.Start(t, slices.Concat([]string{"--dir", dir}, aof.Settings, args)...), filepath.Join(dir, "appendonlydir")
}

func newManager(t *testing.T, client *redis.Client) *redislock.LockManager {
	m, err := redislock.NewLockManager(client)
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

func read(t *testing.T, dirs ...string) *aof.Log {
	entries, err := aof.Read(dirs...)
	require.NoError(t, err)
	return aof.Replay(entries, func(string) (int64, bool) { return 0, false })
}

// tell writes the facts about a key, a word or two each.
func tell(t *testing.T, log *aof.Log, name string) string {
	key := log.Keys[name]
	require.NotNil(t, key, "keys: %v", log.Keys)
	var words []string
	for _, f := range key.Facts {
		word := strings.TrimSpace(f.Kind.String() + " " + f.Value)
		switch {
		case f.Over != "":
			word += " over " + f.Over
		case f.Kind == aof.Pop && !f.Granted:
			word = "skip " + f.Value
		case f.Kind == aof.Strange:
			word += f.Text
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// withoutCrossings leaves out that b or d joined again, and left: a look that was under way as
// it became the holder has it stand in the line for a moment, as its value is of the
// caller's choice.
func withoutCrossings(told string) string {
	seen := make(map[string]bool)
	return strings.Join(slices.DeleteFunc(strings.Split(told, ", "), func(fact string) bool {
		again := seen[fact]
		seen[fact] = true
		switch fact {
		case "join b", "join d":
			return again
		case "leave b", "leave d":
			return true
		}
		return false
	}), ", ")
}

// patience is for what has to come, on a machine ever so busy.
const patience = 30 * time.Second

func awaitLine(t *testing.T, client *redis.Client, queue string, n int64) {
	require.Eventually(t, func() bool { return client.ZCard(ctx, queue).Val() == n }, patience, time.Millisecond)
}

// A pace notes the longest time that a client's request has taken, or that the process
// did not get to run. After a quarter of a second the library sends a request once more,
// and what that does is in the history.
type pace struct{ longest atomic.Int64 }

func (p *pace) note(began time.Time) {
	if took := int64(time.Since(began)); took > p.longest.Load() {
		p.longest.Store(took)
	}
}

// beat ends with the test.
func (p *pace) beat(ended <-chan struct{}) {
	for {
		began := time.Now()
		select {
		case <-ended:
			return
		case <-time.After(time.Millisecond):
			p.note(began)
		}
	}
}

func (p *pace) watch(client *redis.Client) *redis.Client {
	client.AddHook(p)
	return client
}

func (p *pace) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (p *pace) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (p *pace) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		began := time.Now()
		err := next(ctx, cmds)
		p.note(began)
		return err
	}
}

// inPace runs a test again while it returns false, and requests have taken so long that
// it may have been right: on a machine that stood still.
func inPace(t *testing.T, test func(p *pace) bool) {
	t.Helper()
	for range 20 {
		p, ended := new(pace), make(chan struct{})
		go p.beat(ended)
		ok := test(p)
		close(ended)
		if ok {
			return
		}
		if p.longest.Load() < int64(150*time.Millisecond) {
			break
		}
	}
	t.Error("the history is not what it should be")
}

// same tells whether a story is told as it should be.
func same(t *testing.T, want, told string) bool {
	t.Helper()
	if want != told {
		t.Logf("should be: %s\ninstead:   %s", want, told)
	}
	return want == told
}

func TestTheFactsOfARealRun(t *testing.T) { inPace(t, func(p *pace) bool { return theFacts(t, p) }) }

func theFacts(t *testing.T, p *pace) bool {
	server, dir := recorded(t)
	client := p.watch(server.Client(nil))
	m, other := newManager(t, client), newManager(t, p.watch(server.Client(nil)))
	const queue = "redislock:queue:{k}"
	lock := func(m *redislock.LockManager, ctx context.Context, value string, ttl time.Duration) *redislock.Lock {
		return m.Lock(ctx, "k", ttl, redislock.WithValue(value))
	}
	cancelled, cancel := context.WithCancel(ctx)
	a := lock(m, ctx, "a", time.Minute)
	require.NoError(t, a.Wait().Err)
	b := lock(m, ctx, "b", time.Minute)
	awaitLine(t, client, queue, 1)
	c := lock(m, cancelled, "c", time.Minute)
	awaitLine(t, client, queue, 2)
	d := lock(other, ctx, "d", 500*time.Millisecond)
	awaitLine(t, client, queue, 3)
	cancel() // c leaves
	awaitLine(t, client, queue, 2)
	require.NoError(t, a.Extend(ctx, time.Hour))
	require.NoError(t, a.Unlock()) // to b
	require.NoError(t, b.Wait().Err)
	// Nobody listens for this one.
	require.NoError(t, client.ZAdd(ctx, queue, redis.Z{Score: 1, Member: "nobody:1000:1:ghost"}).Err())
	require.NoError(t, b.Unlock()) // to d, of the other manager
	require.NoError(t, d.Wait().Err)
	time.Sleep(time.Until(d.ValidUntil()) + 10*time.Millisecond) // d expires
	e := lock(m, ctx, "e", time.Minute)
	require.NoError(t, e.Wait().Err)
	require.NoError(t, e.Unlock()) // to nobody
	f := lock(m, ctx, "f", time.Minute)
	require.NoError(t, f.Wait().Err)
	require.NoError(t, client.FlushAll(ctx).Err())
	require.Error(t, f.Unlock())
	require.Error(t, c.Wait().Err)

	log := read(t, dir)
	if !same(t, "set a, join b, join c, join d, leave c, prolong a, pop b, set b over a, join ghost, skip ghost, "+
		"pop d, set d over b, unlink d, set e, delete e, set f, flush f", withoutCrossings(tell(t, log, "k"))) {
		return false
	}
	require.Len(t, log.Keys, 1)
	ends := ""
	for _, hold := range log.Keys["k"].Holds {
		ends += fmt.Sprintf("%s %v %d, ", hold.Value, hold.End, len(hold.Deadlines))
	}
	require.Equal(t, "a replace 2, b replace 1, d unlink 1, e delete 1, f flush 1, ", ends)

	require.Greater(t, log.Draws[0].Token, int64(1e15), "the INCR that a SET corrects counts as a draw")
	drawn := make(map[int64]bool)
	for _, draw := range log.Draws {
		require.False(t, drawn[draw.Token])
		drawn[draw.Token] = true
	}
	for _, l := range []*redislock.Lock{a, b, d, e, f} {
		require.True(t, drawn[l.Token()], "the token of %s was not seen to be drawn", l.Value())
	}
	return true
}

// Any key can be found from the name of its queue.
func TestQueuesOfAnyKey(t *testing.T) { inPace(t, func(p *pace) bool { return queues(t, p) }) }

func queues(t *testing.T, p *pace) bool {
	server, dir := recorded(t)
	m := newManager(t, p.watch(server.Client(nil)))
	keys := []string{"plain", "{tag}rest", "a}b", "}", "{", "{}x", "x{y}z}", "a:b", ":x", "{{a}}", "key\r\nwith any\x00byte"}
	for _, key := range keys {
		a := m.Lock(ctx, key, time.Minute, redislock.WithValue("a"))
		require.NoError(t, a.Wait().Err)
		b := m.Lock(ctx, key, time.Minute, redislock.WithValue("b"))
		client := server.Client(nil)
		require.Eventually(t, func() bool { return len(client.Keys(ctx, "redislock:queue:*").Val()) == 1 }, patience, time.Millisecond)
		require.NoError(t, a.Unlock())
		require.NoError(t, b.Wait().Err)
		require.NoError(t, b.Unlock())
	}
	log := read(t, dir)
	for _, key := range keys {
		if !same(t, "set a, join b, pop b, set b over a, delete b", tell(t, log, key)) {
			return false
		}
	}
	require.Len(t, log.Keys, len(keys))
	return true
}

// A server that is killed and starts again goes on in its files; one that begins
// with nothing has others.
func TestRestarts(t *testing.T) {
	server, dir := recorded(t)
	client := server.Client(nil)
	require.NoError(t, client.Do(ctx, "SET", "k", "a", "PX", 60000).Err())
	server.Kill()
	server.Run()
	require.Eventually(t, func() bool { return client.Get(ctx, "k").Val() == "a" }, patience, 5*time.Millisecond)
	require.NoError(t, client.Do(ctx, "DEL", "k").Err())
	require.NoError(t, client.Do(ctx, "SET", "k", "b", "PX", 60000).Err())
	server.Kill()

	empty, second := recorded(t)
	require.NoError(t, empty.Client(nil).Do(ctx, "SET", "k", "c", "NX", "PX", 60000).Err())
	require.Equal(t, "set a, delete a, set b, restart b, set c", tell(t, read(t, dir, second), "k"))
}

func TestExpiryAndEvictionReadUnlink(t *testing.T) {
	server, dir := recorded(t)
	client := server.Client(nil)
	before := time.Now().UnixMilli()
	require.NoError(t, client.Do(ctx, "SET", "k", "a", "NX", "PX", 20).Err())
	after := time.Now().UnixMilli()
	time.Sleep(30 * time.Millisecond)
	require.NoError(t, client.Do(ctx, "SET", "k", "b", "NX", "PX", 60000).Err())
	require.NoError(t, client.ConfigSet(ctx, "maxmemory-policy", "allkeys-random").Err())
	require.NoError(t, client.ConfigSet(ctx, "maxmemory", "1").Err())
	require.Eventually(t, func() bool { return client.Exists(ctx, "k").Val() == 0 }, patience, 5*time.Millisecond)

	entries, err := aof.Read(dir)
	require.NoError(t, err)
	log := aof.Replay(entries, func(value string) (int64, bool) { return map[string]int64{"a": 20, "b": 60000}[value], true })
	require.Equal(t, "set a, unlink a, set b, unlink b", tell(t, log, "k"))
	expired, evicted := log.Keys["k"].Holds[0], log.Keys["k"].Holds[1]
	set, _ := log.Span(expired.Step)
	require.GreaterOrEqual(t, set, before-1000)
	require.LessOrEqual(t, set, after+1000)
	earliest, latest := log.Span(expired.EndStep)
	require.GreaterOrEqual(t, latest, expired.Last())
	require.GreaterOrEqual(t, earliest, set)
	_, latest = log.Span(evicted.EndStep)
	require.Less(t, latest, evicted.Last())
}
