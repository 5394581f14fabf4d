package redislock_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redisserver"
	"github.com/redislock/redislock/internal/redistest"
)

// slotOf asks the cluster.
func slotOf(t *testing.T, client redis.UniversalClient, key string) int {
	t.Helper()
	slot, err := client.ClusterKeySlot(ctx, key).Result()
	require.NoError(t, err)
	return int(slot)
}

func ownerOf(t *testing.T, c *redistest.Cluster, slot int) *redisserver.Server {
	t.Helper()
	owner, err := c.Owner(slot)
	require.NoError(t, err)
	return owner
}

// other returns a master that does not serve the slot.
func other(t *testing.T, c *redistest.Cluster, slot int) *redisserver.Server {
	t.Helper()
	owner := ownerOf(t, c, slot)
	if owner == c.Servers[0] {
		return c.Servers[1]
	}
	return c.Servers[0]
}

// listeners returns how many managers would hear of a grant in the slot on this
// server, by the names of its sharded channels.
func listeners(t *testing.T, c *redistest.Cluster, client redis.UniversalClient, server *redisserver.Server, slot int) (n int) {
	t.Helper()
	node := c.Node(server)
	defer node.Close()
	channels, err := node.PubSubShardChannels(ctx, "redislock:grant:*").Result()
	require.NoError(t, err)
	for _, channel := range channels {
		if slotOf(t, client, channel) == slot {
			n++
		}
	}
	return n
}

// Waiters follow a slot to another server and keep their places: the old server
// says so by leaving their channel. Nothing else tells them, be it a probe after 10 s or a
// look at the line after an event: until they have followed, no request of theirs comes
// through.
func TestClusterWaitersFollowTheirSlot(t *testing.T) {
	c := redistest.StartCluster(t, 3, 0)
	client := c.Client(nil)
	var managers [3]*redislock.LockManager
	var requests gate
	for i := range managers {
		client := c.Client(func(o *redis.ClusterOptions) {
			o.NewClient = func(node *redis.Options) *redis.Client {
				client := redis.NewClient(node)
				client.AddHook(pipelineHook(requests.pass))
				return client
			}
		})
		managers[i] = newManager(t, client, redislock.WithKeyspaceEvents(redislock.KeyspaceOff))
	}
	slot := slotOf(t, client, "key")
	holder := acquire(t, managers[0], "key", time.Minute)
	order := &turns{t: t}
	for i := range 12 {
		order.add(i, managers[i%3].Lock(ctx, "key", time.Minute))
		awaitWaiters(t, client, "key", i+1)
	}
	for range 3 {
		for _, m := range managers {
			eventually(t, "nothing is under way that may find out by itself", func() bool {
				return m.Listens("key") && m.Requests() == 0 && !m.Surveys()
			})
		}
		open := requests.shut(t)
		to := other(t, c, slot)
		require.NoError(t, c.Move(slot, to))
		eventually(t, "all listen at the new server", func() bool {
			return listeners(t, c, client, to, slot) == len(managers)
		})
		open()
		require.NoError(t, holder.Extend(ctx, time.Minute))
	}
	start := time.Now()
	require.NoError(t, holder.Unlock())
	order.requireInOrder()
	t.Log("all served within", time.Since(start))
	clean(t, c, client)
}

// clean checks that nothing is left on any server but what goes by itself.
func clean(t *testing.T, c *redistest.Cluster, client *redis.ClusterClient) {
	t.Helper()
	eventually(t, "nothing left in the cluster", func() bool {
		left := false
		var mu sync.Mutex
		err := client.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
			keys, err := node.Keys(ctx, "*").Result()
			mu.Lock()
			defer mu.Unlock()
			for _, key := range keys {
				left = left || !strings.HasPrefix(key, redislock.FenceKey) && !strings.HasPrefix(key, redislock.SkippedKeys)
			}
			return err
		})
		return err == nil && !left
	})
}

// Slots move to and fro under load, also to a node that has just joined. Nobody
// fails, nobody is left behind, and keys in other slots do not notice.
func TestClusterSlotsMoveUnderLoad(t *testing.T) {
	c := redistest.StartCluster(t, 3, 0)
	client := c.Client(nil)
	work := newLoad(t)
	var managers [3]*redislock.LockManager
	for i := range managers {
		managers[i] = newManager(t, c.Client(nil))
		for j := range 6 {
			work.run(managers[i], "{moving}:"+strconv.Itoa(j%2), 20*time.Second)
			work.run(managers[i], fmt.Sprint("own:", i, ":", j), 20*time.Second)
		}
	}
	slot, calm := slotOf(t, client, "{moving}"), "calm"
	require.NotEqual(t, slot, slotOf(t, client, calm))

	joined, err := c.Join()
	require.NoError(t, err)
	holder := acquire(t, managers[0], calm, time.Minute)
	order := &turns{t: t}
	for i := range 30 {
		order.add(i, managers[i%3].Lock(ctx, calm, time.Minute))
		awaitWaiters(t, client, calm, i+1)
	}
	for i := range 4 {
		to := other(t, c, slot)
		if i == 2 {
			to = joined
		}
		require.NoError(t, c.Move(slot, to))
		work.goesOn(500)
	}
	require.NoError(t, holder.Unlock())
	order.requireInOrder()
	work.end()
	clean(t, c, client)
}

// While the keys of a slot are on their way, what needs several of them has to
// wait; a lease that is extended, and a key that is free, have not.
func TestClusterAmidAMove(t *testing.T) {
	c := redistest.StartCluster(t, 3, 0)
	client := c.Client(nil)
	m := newManager(t, c.Client(nil))
	slot := slotOf(t, client, "{slot}")
	to := other(t, c, slot)
	l := acquire(t, m, "{slot}held", 10*time.Second)
	waiting := m.Lock(ctx, "{slot}held", time.Minute)
	awaitWaiters(t, client, "{slot}held", 1)

	require.NoError(t, c.BeginMove(slot, to))
	require.NoError(t, l.Extend(ctx, time.Minute))
	require.NoError(t, c.MoveKeys(slot, to))
	require.NoError(t, l.Extend(ctx, 2*time.Minute))
	left, err := client.PTTL(ctx, "{slot}held").Result()
	require.NoError(t, err)
	require.Greater(t, left, time.Minute)
	free := acquire(t, m, "{slot}free", 10*time.Second)

	unlocked := make(chan error, 2)
	go func() { unlocked <- l.Unlock() }()
	go func() { unlocked <- free.Unlock() }()
	require.NoError(t, c.EndMove(slot, to))
	require.NoError(t, receive(t, unlocked))
	require.NoError(t, receive(t, unlocked))
	serve(t, waiting)
	clean(t, c, client)
}

// kill -9 of a master under load: its replica takes over, and all go on.
func TestClusterMasterKilled(t *testing.T) {
	c := redistest.StartCluster(t, 3, 1)
	client := c.Client(nil)
	work := newLoad(t)
	work.forgets = true
	var managers [3]*redislock.LockManager
	for i := range managers {
		managers[i] = newManager(t, c.Client(nil))
		for j := range 12 {
			work.run(managers[i], "key"+strconv.Itoa(j%6), 3*time.Second)
		}
	}
	slot := slotOf(t, client, "key0")
	victim := ownerOf(t, c, slot)
	// Those who wait for a key on the victim wait on, and in their order if their
	// holder is still there.
	key := "{key0}line"
	holder := acquire(t, managers[0], key, time.Minute)
	order := &turns{t: t}
	for i := range 12 {
		order.add(i, managers[i%3].Lock(ctx, key, time.Minute))
		awaitWaiters(t, client, key, i+1)
	}
	require.NoError(t, replicated(c.Node(victim)))

	work.goesOn(1000)
	victim.Kill()
	var heir *redisserver.Server
	eventually(t, "the replica takes over", func() bool {
		owner, err := c.Owner(slot)
		heir = owner
		return err == nil && owner != victim
	})
	eventually(t, "all listen at the heir", func() bool {
		return listeners(t, c, client, heir, slot) == len(managers)
	})
	work.goesOn(1000)
	require.NoError(t, holder.Unlock())
	order.requireInOrder()
	work.mu.Lock()
	keys := len(work.tokens)
	work.mu.Unlock()
	require.Equal(t, 6, keys)
	work.end()
}

// replicated waits until a replica has all that the server has.
func replicated(server *redis.Client) error {
	return server.Conn().Process(ctx, redis.NewCmd(ctx, "wait", 1, 5000))
}

// One connection for subscriptions to each master, however many keys.
func TestClusterConnectionsAreBounded(t *testing.T) {
	c := redistest.StartCluster(t, 3, 0)
	client := c.Client(nil)
	m := newManager(t, c.Client(nil))
	const n = 200
	var holders, waiting [n]*redislock.Lock
	for i := range n {
		holders[i] = acquire(t, m, "key"+strconv.Itoa(i), time.Minute)
	}
	for i := range n {
		waiting[i] = m.Lock(ctx, "key"+strconv.Itoa(i), time.Minute)
	}
	for i := range n {
		awaitWaiters(t, client, "key"+strconv.Itoa(i), 1)
	}
	for _, server := range c.Servers {
		list, err := c.Node(server).Do(ctx, "client", "list", "type", "pubsub").Text()
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(list, "\n"), list)
	}
	for i := range n {
		require.NoError(t, holders[i].Unlock())
		serve(t, waiting[i])
	}
	clean(t, c, client)
	eventually(t, "no channels are kept for nothing", func() bool {
		channels := 0
		for _, server := range c.Servers {
			names, err := c.Node(server).PubSubShardChannels(ctx, "*").Result()
			require.NoError(t, err)
			channels += len(names)
		}
		return channels == 0
	})
}

// A master that hangs holds up nobody but who needs it.
func TestClusterMasterHangs(t *testing.T) {
	c := redistest.StartCluster(t, 3, 0)
	client := c.Client(nil)
	const timeout = 20 * time.Second
	m := newManager(t, c.Client(func(o *redis.ClusterOptions) { o.ReadTimeout = timeout }))
	victim := ownerOf(t, c, slotOf(t, client, "stuck"))
	var here, elsewhere []string
	for i := 0; len(elsewhere) < 20 || len(here) < 20; i++ {
		if key := "key" + strconv.Itoa(i); ownerOf(t, c, slotOf(t, client, key)) == victim {
			here = append(here, key)
		} else {
			elsewhere = append(elsewhere, key)
		}
	}
	serve(t, m.Lock(ctx, "stuck", time.Minute)) // the topology is known
	require.NoError(t, victim.Freeze())
	defer victim.Thaw() // or Close would wait for it
	short, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	var stuck []*redislock.Lock
	for i, key := range here[:20] {
		stuck = append(stuck, m.Lock(short, key, time.Minute))
		serve(t, m.Lock(ctx, elsewhere[i], time.Minute))
	}
	require.Less(t, time.Since(began), timeout, "a time-out was waited for")
	cancel()
	for _, l := range stuck {
		require.ErrorIs(t, soon(t, l).Err, context.Canceled)
	}
	require.NoError(t, victim.Thaw())
	serve(t, m.Lock(ctx, "stuck", time.Minute))
	clean(t, c, client)
}

// A client that does not know of the cluster is told so, and does not wait for
// what will not come.
func TestClientOfOneNodeOfAClusterIsToldSo(t *testing.T) {
	c := redistest.StartCluster(t, 3, 0)
	for _, server := range c.Servers {
		m, err := redislock.NewLockManager(c.Node(server))
		require.NoError(t, err)
		defer m.Close() // which may fail as well
		for i := range 10 {
			l := m.Lock(ctx, strconv.Itoa(i), time.Second)
			r := soon(t, l)
			if r.Err == nil { // this node has the slots of key and fence both
				r = soon(t, m.Lock(ctx, strconv.Itoa(i), time.Second))
				require.ErrorContains(t, l.Unlock(), "CROSSSLOT")
			}
			require.ErrorContains(t, r.Err, "Cluster")
		}
	}
}

// What travels together to a master is one call for each slot.
func TestClusterReleasesInCompany(t *testing.T) {
	c := redistest.StartCluster(t, 3, 0)
	client := c.Client(nil)
	tags := []string{"0"}
	for i := 1; len(tags) < 2; i++ {
		if tag := strconv.Itoa(i); ownerOf(t, c, slotOf(t, client, tag)) == ownerOf(t, c, slotOf(t, client, tags[0])) {
			tags = append(tags, tag)
		}
	}
	var both atomic.Bool
	require.NoError(t, client.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
		node.AddHook(pipelineHook(func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
			calls := 0
			for _, cmd := range cmds {
				if keys, ok := cmd.Args()[2].(int); ok && strings.HasPrefix(cmd.Name(), "eval") && keys > 2 {
					calls++
				}
			}
			if calls > 1 {
				both.Store(true)
			}
			return next(ctx, cmds)
		}))
		return nil
	}))
	m := newManager(t, client)
	eventually(t, "released in company", func() bool {
		allAtOnce(t, m, 40, func(i int) string { return fmt.Sprintf("{%s}%d", tags[i%2], i) })
		return both.Load() || t.Failed()
	})
	clean(t, c, client)
}

// In a cluster the library needs these rights besides; as the README has it.
func TestClusterUserWithJustTheRightsItNeeds(t *testing.T) {
	c := redistest.StartCluster(t, 3, 1)
	for _, server := range c.Servers {
		args := []any{"acl", "setuser", "locker", "reset", "on", ">secret"}
		for _, rule := range append(aclRules,
			"+pubsub|shardnumsub", "+spublish", "+ssubscribe", "+sunsubscribe", "+cluster|slots", "+asking", "+wait") {
			args = append(args, rule)
		}
		require.NoError(t, c.Node(server).Do(ctx, args...).Err())
	}
	admin := c.Client(nil)
	user := func(o *redis.ClusterOptions) { o.Username, o.Password = "locker", "secret" }
	prefix := redislock.WithPrefix("app:")
	m, m2 := newManager(t, c.Client(user), prefix), newManager(t, c.Client(user), prefix,
		redislock.WithReplicas(1, slowReplica))
	slot := slotOf(t, admin, "app:key")
	for range 2 {
		holder := acquire(t, m, "key", time.Minute, redislock.WithAutoRenew(time.Hour))
		next := m2.Lock(ctx, "key", time.Minute)
		awaitWaiters(t, admin, "app:key", 1)
		again := m.Lock(ctx, "key", time.Minute)
		awaitWaiters(t, admin, "app:key", 2)
		eventually(t, "subscribed to the key", func() bool { return m.Watches("app:key") })
		to := other(t, c, slot)
		require.NoError(t, c.Move(slot, to))
		require.NoError(t, holder.Extend(ctx, 2*time.Minute))
		eventually(t, "both listen there", func() bool { return listeners(t, c, admin, to, slot) == 2 })
		require.NoError(t, holder.Unlock())
		serve(t, next)
		serve(t, again)
	}
	clean(t, c, admin)
	for _, server := range c.Servers {
		require.Empty(t, aclDenials(t, c.Node(server), "config"))
	}
}

// Redis before 7.0 has no sharded channels: who has to wait is told what is missing.
func TestClusterWithoutShardedChannels(t *testing.T) {
	args := []string{"--cluster-enabled", "yes"}
	if known, err := redistest.Start(t).Client(nil).Do(ctx, "command", "info", "ssubscribe").Slice(); err == nil && known[0] != nil {
		args = append(args, "--rename-command", "SSUBSCRIBE", "")
	}
	server := redistest.Start(t, args...)
	node := server.Client(nil)
	all := []any{"cluster", "addslots"}
	for slot := range 16384 {
		all = append(all, slot)
	}
	require.NoError(t, node.Do(ctx, all...).Err())
	eventually(t, "the cluster serves", func() bool { return node.Set(ctx, "other", "", time.Minute).Err() == nil })
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{server.Addr}})
	t.Cleanup(func() { client.Close() })
	m := newManager(t, client)
	holder := acquire(t, m, "key", time.Minute)
	err := soon(t, m.Lock(ctx, "key", time.Minute)).Err
	require.ErrorContains(t, err, "a cluster needs Redis 7.0 or newer")
	require.ErrorContains(t, err, "unknown command")
	require.NoError(t, holder.Unlock())
}
