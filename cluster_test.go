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

// A load has callers compete for keys, and notices when two hold the same at a
// time, or tokens do not rise.
type load struct {
	t       *testing.T
	stop    atomic.Bool
	done    sync.WaitGroup
	served  atomic.Int64
	failed  atomic.Int64
	mayFail bool // calls may fail while Redis is changing

	mu      sync.Mutex
	holders map[string]*redislock.Lock
	tokens  map[string]int64
}

func newLoad(t *testing.T) *load {
	return &load{t: t, holders: make(map[string]*redislock.Lock), tokens: make(map[string]int64)}
}

func (l *load) run(m *redislock.LockManager, key string, ttl time.Duration) {
	l.done.Go(func() {
		for !l.stop.Load() {
			ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
			lock := m.Lock(ctx, key, ttl)
			if r := lock.Wait(); r.Err == nil {
				l.hold(key, lock)
			} else if l.failed.Add(1); !l.mayFail {
				l.t.Error(r.Err)
			}
			if err := lock.Unlock(); err != nil && !l.mayFail {
				l.t.Error(err)
			}
			cancel()
		}
	})
}

func (l *load) hold(key string, lock *redislock.Lock) {
	l.mu.Lock()
	if other := l.holders[key]; other != nil && other.Err() == nil && lock.Err() == nil {
		l.t.Errorf("%s has two holders, tokens %d and %d", key, other.Token(), lock.Token())
	}
	if before := l.tokens[key]; lock.Token() <= before && lock.Err() == nil {
		l.t.Errorf("%s: token %d after %d", key, lock.Token(), before)
	}
	l.holders[key], l.tokens[key] = lock, max(l.tokens[key], lock.Token())
	l.mu.Unlock()
	l.served.Add(1)
	time.Sleep(100 * time.Microsecond) // the time for others to be wrong
	l.mu.Lock()
	if l.holders[key] == lock {
		delete(l.holders, key)
	}
	l.mu.Unlock()
}

// goesOn waits until so many more have been served.
func (l *load) goesOn(n int64) {
	l.t.Helper()
	want := l.served.Load() + n
	for end := time.Now().Add(30 * time.Second); l.served.Load() < want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("no more than %d of %d were served", l.served.Load()-want+n, n)
		}
	}
}

func (l *load) end() {
	l.stop.Store(true)
	l.done.Wait()
	l.t.Logf("%d served, %d failed", l.served.Load(), l.failed.Load())
}

// Waiters follow a slot to another server and keep their places: the old server
// says so by leaving their channel.
func TestClusterWaitersFollowTheirSlot(t *testing.T) {
	c := redistest.StartCluster(t, 3, 0)
	client := c.Client(nil)
	var managers [3]*redislock.LockManager
	for i := range managers {
		managers[i] = newManager(t, c.Client(nil))
	}
	slot := slotOf(t, client, "key")
	holder := acquire(t, managers[0], "key", time.Minute)
	order := &turns{t: t}
	for i := range 12 {
		order.add(i, managers[i%3].Lock(ctx, "key", time.Minute))
		awaitWaiters(t, client, "key", i+1)
	}
	for range 3 {
		to := other(t, c, slot)
		require.NoError(t, c.Move(slot, to))
		eventually(t, "all listen at the new server", func() bool {
			return listeners(t, c, client, to, slot) == len(managers)
		})
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
	require.NoError(t, <-unlocked)
	require.NoError(t, <-unlocked)
	serve(t, waiting)
	clean(t, c, client)
}

// kill -9 of a master under load: its replica takes over, and all go on.
func TestClusterMasterKilled(t *testing.T) {
	c := redistest.StartCluster(t, 3, 1)
	client := c.Client(nil)
	work := newLoad(t)
	work.mayFail = true
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
	m := newManager(t, c.Client(nil))
	victim := ownerOf(t, c, slotOf(t, client, "stuck"))
	var elsewhere []string
	for i := 0; len(elsewhere) < 20; i++ {
		key := "key" + strconv.Itoa(i)
		if ownerOf(t, c, slotOf(t, client, key)) != victim {
			elsewhere = append(elsewhere, key)
		}
	}
	serve(t, m.Lock(ctx, "stuck", time.Minute)) // the topology is known
	require.NoError(t, victim.Freeze())
	short, cancel := context.WithCancel(ctx)
	stuck := m.Lock(short, "stuck", time.Minute)
	for _, key := range elsewhere {
		serve(t, m.Lock(ctx, key, time.Minute))
	}
	require.False(t, closed(stuck.Done()), "it has failed")
	cancel()
	require.ErrorIs(t, soon(t, stuck).Err, context.Canceled)
	require.NoError(t, victim.Thaw())
	serve(t, m.Lock(ctx, "stuck", time.Minute))
	clean(t, c, client)
}

// A client that does not know of the cluster is told so, and does not wait for
// what will not come.
func TestClientOfOneNodeOfAClusterIsToldSo(t *testing.T) {
	c := redistest.StartCluster(t, 3, 0)
	for _, server := range c.Servers {
		m := newManager(t, c.Node(server))
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
