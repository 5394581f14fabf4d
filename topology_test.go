package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// A topology is a way to set up Redis that the library works on, and what is
// promised there. The suite's tests differ by these promises and nothing else.
type topology struct {
	name  string
	start func(t *testing.T, on *topology) // sets connect and nodes

	prefix   string             // of every manager
	options  []redislock.Option // further ones
	majority int                // a key is held if so many of the nodes hold it; 0: one

	globalOrder bool // all managers' waiters stand in one line, which is in Redis
	tokens      bool // fencing tokens rise; else they are 0

	build   func(clients []redis.UniversalClient, opts ...redislock.Option) (*redislock.LockManager, error)
	connect func() []redis.UniversalClient // the clients of one manager
	nodes   []redis.UniversalClient        // to look at what is in Redis; each has all keys
}

func topologies() []*topology {
	return []*topology{
		{name: "single", start: startSingle, globalOrder: true, tokens: true},
		{name: "prefix", start: startSingle, prefix: "app{:", globalOrder: true, tokens: true},
		{name: "cluster", start: startCluster(0), globalOrder: true, tokens: true},
		{name: "cluster-replicas", start: startCluster(1), options: confirmed, globalOrder: true, tokens: true},
		{name: "sentinel", start: startSentinels, globalOrder: true, tokens: true},
		{name: "quorum", start: startQuorum(nil), majority: 2, tokens: true},
		{name: "quorum-one-down", start: startQuorum((*redistest.Server).Kill), majority: 2, tokens: true},
		{name: "quorum-one-hung", start: startQuorum((*redistest.Server).Freeze), majority: 2, tokens: true},
	}
}

func startSentinels(t *testing.T, on *topology) {
	sentinels := redistest.StartSentinels(t, 2, 3)
	on.connect = func() []redis.UniversalClient { return []redis.UniversalClient{sentinels.Client(nil)} }
	on.nodes = on.connect()
}

// startQuorum starts three independent masters, and may hurt one of them for good.
func startQuorum(hurt func(*redistest.Server)) func(*testing.T, *topology) {
	return func(t *testing.T, on *topology) {
		var servers []*redistest.Server
		for range 3 {
			servers = append(servers, redistest.Start(t))
		}
		on.build = redislock.NewQuorumManager
		on.connect = func() (clients []redis.UniversalClient) {
			for i, server := range servers {
				clients = append(clients, server.Client(func(o *redis.Options) {
					if hurt != nil && i == 2 { // Close waits for as long as its client does
						o.DialTimeout, o.DialerRetries, o.ReadTimeout = 20*time.Millisecond, 1, 20*time.Millisecond
					}
				}))
			}
			return clients
		}
		on.nodes = on.connect()
		if hurt != nil {
			hurt(servers[2])
			on.nodes = on.nodes[:2]
		}
	}
}

// confirmed has every acquisition confirmed by a replica.
var confirmed = []redislock.Option{redislock.WithReplicas(1, 4*time.Second)}

func startSingle(t *testing.T, on *topology) {
	server := redistest.Start(t)
	on.connect = func() []redis.UniversalClient { return []redis.UniversalClient{server.Client(nil)} }
	on.nodes = on.connect()
}

func startCluster(replicas int) func(*testing.T, *topology) {
	return func(t *testing.T, on *topology) {
		cluster := redistest.StartCluster(t, 3, replicas)
		on.connect = func() []redis.UniversalClient { return []redis.UniversalClient{cluster.Client(nil)} }
		on.nodes = on.connect()
	}
}

// A site is a topology as one test sees it, which has keys of its own there.
type site struct {
	*topology
	keys    []string                // in Redis
	clients []redis.UniversalClient // of all its managers
}

// leave ends what was there for the test's sake, after its managers are closed.
func (on *site) leave(t *testing.T) {
	requireNoGoroutines(t) // and not for want of a client
	for _, client := range on.clients {
		client.Close()
	}
}

// key returns the name of a key that only this test uses, and has nothing left
// of when it ends.
func (on *site) key(t *testing.T, name string) string {
	key := t.Name()[strings.LastIndexByte(t.Name(), '/')+1:] + ":" + name
	on.keys = append(on.keys, on.prefix+key)
	return key
}

// manager returns a manager with clients of its own, as newManager does.
func (on *site) manager(t *testing.T, opts ...redislock.Option) *redislock.LockManager {
	t.Helper()
	m, _ := on.newManager(t, opts)
	t.Cleanup(func() {
		require.NoError(t, m.Close())
		require.True(t, m.Idle(), "the closed manager remembers locks")
	})
	return m
}

func (on *site) managers(t *testing.T, n int, opts ...redislock.Option) (all []*redislock.LockManager) {
	t.Helper()
	for range n {
		all = append(all, on.manager(t, opts...))
	}
	return all
}

// mortal returns a manager, and what cuts it off from Redis as the death of its
// process would.
func (on *site) mortal(t *testing.T) (m *redislock.LockManager, kill func()) {
	t.Helper()
	m, clients := on.newManager(t, nil)
	t.Cleanup(func() { _ = m.Close() }) // cannot tell Redis
	return m, func() {
		t.Helper()
		for _, client := range clients {
			require.NoError(t, client.Close())
		}
		eventually(t, "Redis has seen its end", func() bool { return !on.listens(t, m) })
	}
}

func (on *site) newManager(t *testing.T, opts []redislock.Option) (*redislock.LockManager, []redis.UniversalClient) {
	t.Helper()
	clients := on.connect()
	on.clients = append(on.clients, clients...)
	opts = slices.Concat(on.options, opts)
	if on.prefix != "" {
		opts = append(opts, redislock.WithPrefix(on.prefix))
	}
	build := on.build
	if build == nil {
		build = func(clients []redis.UniversalClient, opts ...redislock.Option) (*redislock.LockManager, error) {
			return redislock.NewLockManager(clients[0], opts...)
		}
	}
	m, err := build(clients, opts...)
	require.NoError(t, err)
	return m, clients
}

// owner returns the value that enough nodes have under the key, or "".
func (on *site) owner(t *testing.T, key string) string {
	t.Helper()
	count := make(map[string]int)
	for _, node := range on.nodes {
		value, err := node.Get(ctx, on.prefix+key).Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		require.NoError(t, err)
		if count[value]++; count[value] >= on.needed() {
			return value
		}
	}
	return ""
}

// anyHas tells whether any node has the value under the key.
func (on *site) anyHas(t *testing.T, key, value string) bool {
	t.Helper()
	for _, node := range on.nodes {
		has, err := node.Get(ctx, on.prefix+key).Result()
		if !errors.Is(err, redis.Nil) {
			require.NoError(t, err)
		}
		if has == value {
			return true
		}
	}
	return false
}

// left returns for how long enough nodes will have the key.
func (on *site) left(t *testing.T, key string) time.Duration {
	t.Helper()
	var left []time.Duration
	for _, node := range on.nodes {
		ttl, err := node.PTTL(ctx, on.prefix+key).Result()
		require.NoError(t, err)
		require.NotEqual(t, time.Duration(-1), ttl, "a lock without a TTL")
		left = append(left, max(ttl, 0))
	}
	slices.Sort(left)
	return left[len(left)-on.needed()]
}

// remove deletes the key behind its holder's back, and none that somebody else has
// set meanwhile.
func (on *site) remove(t *testing.T, key string) {
	t.Helper()
	_, err := on.releaseForeign(key, on.owner(t, key))
	require.NoError(t, err)
}

// occupy takes a free key as another program does that then dies: on so many
// nodes as it takes, and no more, so that whoever comes gets the rest, and gets it
// first. (A claim of a lock that is lost by now may still arrive at a node that it
// could do without.)
func (on *site) occupy(t *testing.T, key string, ttl time.Duration) {
	t.Helper()
	won := 0
	for _, node := range slices.Backward(on.nodes) {
		if won == on.needed() {
			return
		}
		set, err := node.SetNX(ctx, on.prefix+key, "foreign", ttl).Result()
		require.NoError(t, err)
		if set {
			won++
		}
	}
	require.Equal(t, on.needed(), won, "the key is taken")
}

var deleteIfOwner = redis.NewScript(`
if redis.call("GET", KEYS[1]) == ARGV[1] then
  return redis.call("DEL", KEYS[1])
end
return 0`)

// tryForeign tries for the key as another program does, by SET NX PX on every
// node. It gives back what it got if that is not enough.
func (on *site) tryForeign(key, value string, ttl time.Duration) (bool, error) {
	won := 0
	for _, node := range on.nodes {
		set, err := node.SetNX(ctx, on.prefix+key, value, ttl).Result()
		if err != nil {
			return false, err
		}
		if set {
			won++
		}
	}
	if won >= on.needed() {
		return true, nil
	}
	_, err := on.releaseForeign(key, value)
	return false, err
}

// releaseForeign undoes tryForeign, and tells whether the key was held until now.
func (on *site) releaseForeign(key, value string) (bool, error) {
	had := 0
	for _, node := range on.nodes {
		n, err := deleteIfOwner.Run(ctx, node, []string{on.prefix + key}, value).Int()
		if err != nil {
			return false, err
		}
		had += n
	}
	return had >= on.needed(), nil
}

func (on *topology) needed() int { return max(on.majority, 1) }

// awaitWaiting waits until n callers stand in the line for the key. Where the
// line is not in Redis there is nothing to see, and no test may depend on it.
func (on *site) awaitWaiting(t *testing.T, key string, n int) {
	t.Helper()
	if on.globalOrder {
		awaitWaiters(t, on.nodes[0], on.prefix+key, n)
	}
}

// servers returns a client of every server that takes writes.
func (on *site) servers(t *testing.T) (all []redis.UniversalClient) {
	t.Helper()
	for _, node := range on.nodes {
		cluster, ok := node.(*redis.ClusterClient)
		if !ok {
			all = append(all, node)
			continue
		}
		var mu sync.Mutex
		require.NoError(t, cluster.ForEachMaster(ctx, func(_ context.Context, master *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, master)
			return nil
		}))
	}
	return all
}

// listens tells whether a server has a connection on which the manager hears of
// grants.
func (on *site) listens(t *testing.T, m *redislock.LockManager) bool {
	t.Helper()
	for _, server := range on.servers(t) {
		channels, err := server.PubSubChannels(ctx, "*"+m.ID()+"*").Result()
		require.NoError(t, err)
		if _, ok := on.nodes[0].(*redis.ClusterClient); ok {
			channels, err = server.PubSubShardChannels(ctx, "*"+m.ID()+"*").Result()
			require.NoError(t, err)
		}
		if len(channels) > 0 {
			return true
		}
	}
	return false
}

// requireNothingLeft checks that Redis forgets the keys of the test.
func (on *site) requireNothingLeft(t *testing.T) {
	t.Helper()
	var found []string
	defer func() {
		if t.Failed() {
			t.Logf("left in Redis: %q", found)
		}
	}()
	eventually(t, "nothing is left in Redis", func() bool {
		found = nil
		for _, node := range on.nodes {
			pipe := node.Pipeline()
			for _, key := range on.keys {
				queue, shortest := redislock.KeysOf(key)
				for _, name := range []string{key, queue, shortest} {
					pipe.Exists(ctx, name)
				}
			}
			cmds, err := pipe.Exec(ctx)
			require.NoError(t, err)
			for _, cmd := range cmds {
				if cmd.(*redis.IntCmd).Val() != 0 {
					found = append(found, fmt.Sprint(cmd.Args()[1]))
				}
			}
		}
		return len(found) == 0
	})
}

// requireAllPasses checks that what is left of all tests goes by itself, and is
// none of what a lock needs.
func (on *site) requireAllPasses(t *testing.T) {
	t.Helper()
	for _, server := range on.servers(t) {
		keys, err := server.Keys(ctx, "*").Result()
		require.NoError(t, err)
		for _, key := range keys {
			require.True(t, strings.HasPrefix(key, "redislock:"), "%q was left", key)
			require.NotRegexp(t, "^redislock:(queue|shortest):", key)
			ttl, err := server.PTTL(ctx, key).Result()
			require.NoError(t, err)
			require.NotEqual(t, time.Duration(-1), ttl, "%q would outlive its use", key)
		}
	}
}
