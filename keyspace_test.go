package redislock_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// A log that tests can read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// awaitEvents waits until a manager with waiters for a key hears the key's events
// and has taken the look that follows the subscription: from then on nothing but
// an event tells that the key was freed.
func awaitEvents(t *testing.T, m *redislock.LockManager, client *redis.Client, key string) {
	t.Helper()
	channel := fmt.Sprintf("__keyspace@%d__:%s", client.Options().DB, key)
	eventually(t, "subscribed to the key", func() bool { return client.Publish(ctx, channel, "nothing").Val() == 1 })
	eventually(t, "heard, and looked", func() bool { return m.HasHeard(key) })
}

// A key that a foreign program frees goes to the next waiter at once, although
// its TTL is an hour.
func TestKeyFreedByOthersGoesToTheNextAtOnce(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(nil)
	for name, free := range map[string]func() error{
		"del":       func() error { return client.Del(ctx, "key").Err() },
		"unlink":    func() error { return client.Unlink(ctx, "key").Err() },
		"getdel":    func() error { return client.GetDel(ctx, "key").Err() },
		"pexpire 0": func() error { return client.PExpire(ctx, "key", 0).Err() },
		"rename":    func() error { return client.Rename(ctx, "key", "elsewhere").Err() },
		"move":      func() error { return client.Do(ctx, "move", "key", 1).Err() },
		"lua": func() error {
			return client.Eval(ctx, "return redis.call('DEL', KEYS[1])", []string{"key"}).Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, client)
			require.NoError(t, client.Set(ctx, "key", "foreign", time.Hour).Err())
			l := m.Lock(ctx, "key", time.Minute)
			awaitEvents(t, m, client, "key")
			require.NoError(t, free())
			serve(t, l)
			require.NoError(t, client.Del(ctx, "elsewhere").Err())
		})
	}
	requireClean(t, client)
}

func TestFreeingEventsAreHeededAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		for _, event := range []string{"del", "expired", "evicted", "rename_from", "move_from"} {
			require.NoError(t, b.server.Set("key", "foreign"))
			b.server.SetTTL("key", time.Hour)
			l := b.manager.Lock(ctx, "key", time.Minute)
			time.Sleep(10 * time.Second)
			b.server.Del("key")
			start := time.Now()
			require.Equal(t, 1, b.server.Publish("__keyspace@0__:key", event))
			require.NoError(t, l.Wait().Err)
			require.Equal(t, start, time.Now(), event)
			require.NoError(t, l.Unlock())
		}
	})
}

// Freed in the moment before the subscription: nothing announces it, and yet.
func TestKeyFreedBeforeTheSubscriptionIsUp(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(nil)
	m := newManager(t, client)
	for i := range 30 {
		require.NoError(t, client.Set(ctx, "key", "foreign", time.Hour).Err())
		l := m.Lock(ctx, "key", time.Minute)
		time.Sleep(time.Duration(i) * time.Millisecond)
		require.NoError(t, client.Del(ctx, "key").Err())
		require.NoError(t, soon(t, l).Err) // it would be an hour
		require.NoError(t, l.Unlock())
	}
	requireClean(t, client)
}

func TestEvictedKeyGoesToTheNext(t *testing.T) {
	server := redistest.Start(t, "--maxmemory-policy", "volatile-ttl")
	client := server.Client(nil)
	m := newManager(t, client)
	require.NoError(t, client.Set(ctx, "key", strings.Repeat("x", 1<<20), time.Minute).Err())
	l := m.Lock(ctx, "key", time.Minute)
	awaitEvents(t, m, client, "key")
	queue, shortest := redislock.KeysOf("key")
	for _, key := range []string{queue, shortest, redislock.FenceKey} {
		require.NoError(t, client.Persist(ctx, key).Err()) // not to be evicted
	}
	used := server.Stat(client, "used_memory")
	require.NoError(t, client.ConfigSet(ctx, "maxmemory", fmt.Sprint(used-500_000)).Err())
	eventually(t, "evicted", func() bool { return server.Stat(client, "evicted_keys") > 0 })
	require.NoError(t, client.ConfigSet(ctx, "maxmemory", "0").Err())
	serve(t, l)
}

func TestFlagsAreAddedToThoseThatAreThere(t *testing.T) {
	for before, after := range map[string]string{
		"": "Kgxe", "Kgxe": "", "KEA": "", "AK": "", "A": "K", "E": "Kgxe", "Ex": "Kge", "Kx": "ge", "lK": "gxe", "Elg": "Kxe",
	} {
		require.Equal(t, after, redislock.MissingFlags(before), before)
	}

	server := redistest.Start(t, "--notify-keyspace-events", "Elg")
	client := server.Client(nil)
	var log logBuffer
	m := newManager(t, client, redislock.WithLogger(log.logger()), redislock.WithKeyspaceEvents(redislock.KeyspaceRequired))
	require.NoError(t, acquire(t, m, "key", time.Minute).Unlock())
	flags := client.ConfigGet(ctx, "notify-keyspace-events").Val()["notify-keyspace-events"]
	for _, flag := range "ElgKxe" {
		require.Contains(t, flags, string(flag))
	}
	require.NotContains(t, flags, "A")
	require.NotContains(t, flags, "$")
	require.Contains(t, log.String(), "keyspace events switched on")
}

// Switched off in flight, and with all messages lost: the end of the lease is
// noticed all the same.
func TestNotificationsSwitchedOffInFlight(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(nil)
	m := newManager(t, client)
	withShortLease(t, func(ttl time.Duration) bool {
		require.NoError(t, client.ConfigSet(ctx, "notify-keyspace-events", "Kgxe").Err())
		require.NoError(t, client.Set(ctx, "key", "foreign", ttl).Err())
		l := m.Lock(ctx, "key", time.Minute)
		eventually(t, "subscribed to the key", func() bool { return m.Watches("key") || l.Token() != 0 })
		require.NoError(t, client.ConfigSet(ctx, "notify-keyspace-events", "").Err())
		inTime := l.Token() == 0
		require.Less(t, soon(t, l).Waited, 20*time.Second)
		require.NoError(t, l.Unlock())
		return inTime
	})
}

// A holder without a TTL that is deleted unannounced is noticed within a second.
func TestKeyWithoutATTL(t *testing.T) {
	client := redistest.Start(t).Client(nil)
	m := newManager(t, client, redislock.WithKeyspaceEvents(redislock.KeyspaceOff))
	require.NoError(t, client.Set(ctx, "key", "foreign", 0).Err())
	l := m.Lock(ctx, "key", time.Hour)
	awaitWaiters(t, client, "key", 1)
	require.NoError(t, client.Del(ctx, "key").Err())
	require.Less(t, soon(t, l).Waited, 5*time.Second)
	require.NoError(t, l.Unlock())
}

// The library needs these rights and no others; as the README has it.
var aclRules = []string{
	"~app:*", "~redislock:*", "&redislock:grant:*", "&__keyspace@*__:app:*",
	"+set", "+get", "+mget", "+incr", "+incrby", "+del", "+exists", "+pexpire", "+pttl", "+time",
	"+zadd", "+zpopmin", "+zrange", "+zrem", "+zremrangebyrank", "+zscore",
	"+eval", "+evalsha", "+publish", "+pubsub|numsub", "+subscribe", "+unsubscribe", "+ping",
}

func aclClient(t *testing.T, server *redistest.Server, rules []string) *redis.Client {
	t.Helper()
	admin := server.Client(nil)
	args := []any{"acl", "setuser", "locker", "reset", "resetchannels", "on", ">secret"} // of Redis 6.2 all channels are open at first
	for _, rule := range rules {
		args = append(args, rule)
	}
	require.NoError(t, admin.Do(ctx, args...).Err())
	return server.Client(func(o *redis.Options) { o.Username, o.Password = "locker", "secret" })
}

// readmeRules are those of the line that users copy.
func readmeRules(t *testing.T) []string {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, line, _ := strings.Cut(string(text), "ACL SETUSER locker on >secret ")
	line, _, found := strings.Cut(line, "```")
	require.True(t, found)
	return strings.Fields(line)
}

// Each right of the README's line is used, and none is missing.
func TestEachRightIsNeeded(t *testing.T) {
	rules := readmeRules(t)
	require.Equal(t, append([]string{"resetchannels"}, aclRules...), rules)
	server := redistest.Start(t)
	admin := server.Client(nil)
	client := aclClient(t, server, rules)
	m, m2 := newManager(t, client, redislock.WithPrefix("app:")), newManager(t, client, redislock.WithPrefix("app:"))
	require.NoError(t, admin.ConfigResetStat(ctx).Err())

	holder := acquire(t, m, "key", time.Minute)
	require.NoError(t, admin.Do(ctx, "zadd", "redislock:queue:{app:key}", 1, "a-manager-that-died:60000:1:value").Err())
	next := m2.Lock(ctx, "key", 2*time.Second)
	awaitWaiters(t, admin, "app:key", 2)
	behind := m.Lock(ctx, "key", time.Minute)
	awaitWaiters(t, admin, "app:key", 3)
	require.NoError(t, holder.Extend(ctx, 2*time.Minute))
	eventually(t, "subscribed to the key", func() bool { return m2.Watches("app:key") })
	require.NoError(t, holder.Unlock())
	require.NoError(t, soon(t, next).Err) // and is not released: those behind look
	leaves := m2.Lock(ctx, "key", time.Minute)
	awaitWaiters(t, admin, "app:key", 2)
	require.NoError(t, leaves.Unlock())
	serve(t, behind)
	unused := func() (unused []string) {
		stats := admin.Info(ctx, "commandstats").Val()
		for _, rule := range rules {
			name, ok := strings.CutPrefix(rule, "+")
			container, _, _ := strings.Cut(name, "|") // by which Redis 6.2 counts
			if ok && !strings.Contains(stats, "cmdstat_"+name+":") && !strings.Contains(stats, "cmdstat_"+container+":") {
				unused = append(unused, name)
			}
		}
		return unused
	}
	for end := time.Now().Add(patience); len(unused()) > 0; {
		require.True(t, time.Now().Before(end), "never used: %v", unused())
		allAtOnce(t, m, 20, func(i int) string { return fmt.Sprint("key", i) })
	}
	require.Empty(t, aclDenials(t, admin, "config"))
}

func TestAUserInAnotherDatabase(t *testing.T) {
	server := redistest.Start(t)
	aclClient(t, server, append([]string{"+select"}, aclRules...))
	client := server.Client(func(o *redis.Options) { o.Username, o.Password, o.DB = "locker", "secret", 3 })
	m := newManager(t, client, redislock.WithPrefix("app:"))
	holder := acquire(t, m, "key", time.Minute)
	next := m.Lock(ctx, "key", time.Minute)
	require.NoError(t, holder.Unlock())
	serve(t, next)
	require.Empty(t, aclDenials(t, server.Client(nil), "config"))
}

func TestAUserWithJustTheRightsItNeeds(t *testing.T) {
	server := redistest.Start(t)
	client := aclClient(t, server, aclRules)
	var log logBuffer
	m := newManager(t, client, redislock.WithPrefix("app:"), redislock.WithLogger(log.logger()))
	m2 := newManager(t, client, redislock.WithPrefix("app:"))
	admin := server.Client(nil)

	holder := acquire(t, m, "key", time.Minute, redislock.WithAutoRenew(time.Hour))
	next := m2.Lock(ctx, "key", time.Minute)
	awaitWaiters(t, admin, "app:key", 1)
	again := m.Lock(ctx, "key", time.Minute)
	awaitWaiters(t, admin, "app:key", 2)
	eventually(t, "subscribed to the key", func() bool { return m.Watches("app:key") })
	require.NoError(t, holder.Extend(ctx, 2*time.Minute))
	require.NoError(t, holder.Unlock())
	serve(t, next)
	serve(t, again)
	eventually(t, "released in company", func() bool {
		allAtOnce(t, m, 20, func(i int) string { return fmt.Sprint("key", i) })
		return strings.Contains(admin.Info(ctx, "commandstats").Val(), "cmdstat_mget:")
	})
	requireClean(t, admin)
	require.Empty(t, aclDenials(t, admin, "config"))

	// CONFIG was refused, and that was said once.
	refusals := func() int { return strings.Count(log.String(), "keyspace events may be off") }
	eventually(t, "the refusal is logged", func() bool { return refusals() > 0 })
	require.Equal(t, 1, refusals(), log.String())
	require.NotContains(t, log.String(), holder.Value())

	_, err := redislock.NewLockManager(client, redislock.WithKeyspaceEvents(redislock.KeyspaceRequired))
	require.Error(t, err)
	require.Contains(t, err.Error(), "CONFIG GET notify-keyspace-events")
}

// aclDenials returns what Redis refused, but for what is expected.
func aclDenials(t *testing.T, admin *redis.Client, expected string) (denied []string) {
	t.Helper()
	entries, err := admin.ACLLog(ctx, 100).Result()
	require.NoError(t, err)
	for _, e := range entries {
		// The client's own greeting is not the library's.
		if !strings.HasPrefix(e.Object, expected) && !strings.HasPrefix(e.Object, "client") && !strings.HasPrefix(e.Object, "hello") {
			denied = append(denied, e.Reason+" "+e.Object)
		}
	}
	return denied
}

func TestKeyspaceEventsForbiddenByACL(t *testing.T) {
	server := redistest.Start(t)
	rules := append([]string(nil), aclRules...)
	rules[3] = "&nothing"
	client := aclClient(t, server, rules)
	var log logBuffer
	m := newManager(t, client, redislock.WithPrefix("app:"), redislock.WithLogger(log.logger()))
	admin := server.Client(nil)
	require.NoError(t, admin.Set(ctx, "app:key", "foreign", 500*time.Millisecond).Err())
	l := m.Lock(ctx, "key", time.Minute)
	serve(t, l)
}

// What Redis has refused of keyspace events is asked for again: it may come to permit
// them while callers wait, over the same connection. The log says so once.
func TestKeyspaceEventsThatArePermittedLater(t *testing.T) {
	server := redistest.Start(t)
	rules := append([]string(nil), aclRules...)
	rules[3] = "&__keyspace@0__:app:b"
	client := aclClient(t, server, rules)
	admin := server.Client(nil)
	var log logBuffer
	m := newManager(t, client, redislock.WithPrefix("app:"), redislock.WithLogger(log.logger()))
	wait := func(key string) *redislock.Lock {
		require.NoError(t, admin.Set(ctx, "app:"+key, "foreign", time.Hour).Err())
		return m.Lock(ctx, key, time.Minute)
	}
	subscribed := func(key string) {
		eventually(t, "subscribed to "+key, func() bool {
			channel := "__keyspace@0__:app:" + key
			return admin.PubSubNumSub(ctx, channel).Val()[channel] == 1
		})
	}
	refusals := func() int { return strings.Count(log.String(), "may not be subscribed to") }
	a := wait("a")
	eventually(t, "the refusal is logged", func() bool { return refusals() > 0 })
	b := wait("b")
	subscribed("b") // although that of a is refused once more along with it

	require.NoError(t, admin.Do(ctx, "acl", "setuser", "locker", "&__keyspace@*__:app:*", "+config").Err())
	subscribed("a")
	eventually(t, "the flags are seen to", func() bool {
		flags := admin.ConfigGet(ctx, "notify-keyspace-events").Val()["notify-keyspace-events"]
		return redislock.MissingFlags(flags) == ""
	})
	require.NoError(t, admin.Del(ctx, "app:a", "app:b").Err())
	serve(t, a)
	serve(t, b)
	require.Equal(t, 1, refusals(), log.String())
	require.Equal(t, 1, strings.Count(log.String(), "events may be off"), log.String())
}

func TestWaitingIsAnErrorWhereSubscribingIsForbidden(t *testing.T) {
	server := redistest.Start(t)
	rules := append([]string(nil), aclRules...)
	rules[2] = "&nothing"
	client := aclClient(t, server, rules)
	m := newManager(t, client, redislock.WithPrefix("app:"))
	l := acquire(t, m, "key", time.Minute) // uncontended it works
	r := soon(t, m.Lock(ctx, "key", time.Minute))
	require.Error(t, r.Err)
	require.Contains(t, r.Err.Error(), "NOPERM")
	require.NoError(t, l.Unlock())
}

func TestOtherDatabases(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(func(o *redis.Options) { o.DB = 3 })
	m := newManager(t, client)
	require.NoError(t, client.Set(ctx, "key", "foreign", time.Hour).Err())
	l := m.Lock(ctx, "key", time.Minute)
	awaitEvents(t, m, client, "key")
	require.NoError(t, client.Del(ctx, "key").Err())
	serve(t, l)
	requireClean(t, client)
}

// A line that moves needs no watching: its own handovers would be the noise.
func TestLineThatMovesIsNotWatched(t *testing.T) {
	client := redistest.Start(t).Client(nil)
	m, m2 := newManager(t, client), newManager(t, client)
	require.NoError(t, client.ConfigSet(ctx, "notify-keyspace-events", "KEA").Err())
	holder := acquire(t, m, "key", time.Minute)
	parked := m2.Lock(ctx, "key", time.Minute)
	eventually(t, "subscribed to the key", func() bool { return m2.Watches("key") })
	eventually(t, "unsubscribed", func() bool {
		for range 2 * redislock.NoiseLimit {
			require.NoError(t, holder.Extend(ctx, time.Hour))
		}
		return !m2.Watches("key")
	})
	eventually(t, "subscribed once it is quiet", func() bool { return m2.Watches("key") })
	require.NoError(t, holder.Unlock())
	serve(t, parked)
}

func TestKeyspaceOffSubscribesToNoEvents(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		m, err := redislock.NewLockManager(b.client, redislock.WithKeyspaceEvents(redislock.KeyspaceOff))
		require.NoError(t, err)
		require.NoError(t, b.server.Set("key", "foreign"))
		parked := []*redislock.Lock{m.Lock(ctx, "key", time.Hour)}
		time.Sleep(time.Minute)
		require.Empty(t, b.server.PubSubChannels("__keyspace*"))
		parked = append(parked, b.manager.Lock(ctx, "key", time.Hour))
		time.Sleep(time.Minute)
		require.Equal(t, []string{"__keyspace@0__:key"}, b.server.PubSubChannels("__keyspace*"))
		for _, l := range parked {
			require.NoError(t, l.Unlock())
		}
		require.NoError(t, m.Close())
	})
}

func TestLogShortensOwnerValues(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		var log logBuffer
		m, err := redislock.NewLockManager(b.client, redislock.WithLogger(log.logger()))
		require.NoError(t, err)
		l := acquire(t, m, "key", time.Second)
		<-l.Done()
		synctest.Wait() // the log is written after the signal
		require.NoError(t, m.Close())
		require.Contains(t, log.String(), "lock lost")
		require.Contains(t, log.String(), l.Value()[:8])
		require.NotContains(t, log.String(), l.Value())
	})
}

// Where nobody waits any more, a subscription that is refused, or that cannot be made, is
// not tried again and again; whoever waits next has it tried once more.
func TestSubscriptionThatNobodyNeedsIsLeft(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client(nil)
	m := newManager(t, aclClient(t, server, []string{"~*", "+@all", "resetchannels"}))
	holder := acquire(t, m, "key", time.Minute)
	for range 2 {
		require.ErrorContains(t, soon(t, m.Lock(ctx, "key", time.Minute)).Err, "NOPERM")
		eventually(t, "it is not tried any more", func() bool {
			return !slices.ContainsFunc(goroutines(), func(stack string) bool { return strings.Contains(stack, "(*events).run") })
		})
	}
	require.NoError(t, admin.Do(ctx, "acl", "setuser", "locker", "allchannels").Err())
	next := m.Lock(ctx, "key", time.Minute)
	awaitWaiters(t, admin, "key", 1)
	require.NoError(t, holder.Unlock())
	serve(t, next)
}
