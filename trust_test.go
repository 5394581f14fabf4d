package redislock_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// An address is one that leads new connections to another server when it is told to,
// as a name or a virtual address does.
type address struct{ leadsTo atomic.Pointer[string] }

func newAddress(server string) *address {
	a := new(address)
	a.leadsTo.Store(&server)
	return a
}

func (a *address) client(t *testing.T) *redis.Client {
	client := redis.NewClient(&redis.Options{
		Addr: "127.0.0.1:1", // not looked up
		Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, *a.leadsTo.Load())
		},
	})
	t.Cleanup(func() { client.Close() })
	return client
}

// handOverTo has a replica take over, without the loss of a write, and waits until the
// old master follows it.
func handOverTo(t *testing.T, master, replica *redistest.Server) {
	t.Helper()
	host, port, err := net.SplitHostPort(replica.Addr)
	require.NoError(t, err)
	old := master.Client(nil)
	require.NoError(t, old.Do(ctx, "failover", "to", host, port).Err())
	eventually(t, "the old master follows the new one", func() bool {
		values, err := old.InfoMap(ctx, "replication").Result()
		return err == nil && values["Replication"]["role"] == "slave" && values["Replication"]["master_link_status"] == "up"
	})
}

// promote has a replica take the place of its master in a cluster. The servers give that
// up after 5 s, as on a machine that stands still for long: then it is asked for again.
func promote(t *testing.T, replica *redis.Client) {
	t.Helper()
	var asked time.Time
	eventually(t, "the replica is the master", func() bool {
		if time.Since(asked) > 6*time.Second {
			require.NoError(t, replica.Do(ctx, "cluster", "failover").Err())
			asked = time.Now()
		}
		values, err := replica.InfoMap(ctx, "replication").Result()
		return err == nil && values["Replication"]["role"] == "master"
	})
}

// A planned failover behind one address: the old master lives on as a replica of the
// new one, its connections stay open, and whoever is subscribed there gets what the
// new master publishes. Each lock has one holder, and each holder a token of its own;
// and nobody waits for the end of a lease. Those who wait find out by nothing but what is
// published: until that has arrived, no request of theirs, such as a probe after 10 s, comes
// through.
func TestPlannedFailoverBehindOneAddress(t *testing.T) {
	a := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	b := startReplica(t, a)
	endpoint := newAddress(a.Addr)
	const waiting, ttl = 4, 5 * time.Minute
	holder := acquire(t, newManager(t, endpoint.client(t)), "key", ttl)
	managers := make([]*redislock.LockManager, waiting)
	var requests gate
	var log logBuffer
	for i := range managers {
		client := endpoint.client(t)
		client.AddHook(pipelineHook(requests.pass))
		managers[i] = newManager(t, client, redislock.WithLogger(log.logger()))
	}
	var locks []*redislock.Lock
	for i := range 2 * waiting {
		locks = append(locks, managers[i%waiting].Lock(ctx, "key", ttl))
		awaitWaiters(t, a.Client(nil), "key", i+1)
	}
	for _, m := range managers {
		eventually(t, "the server has said that it hears this one", func() bool { return m.Requests() == 0 })
	}
	open := requests.shut(t)
	channels, client := a.Client(nil).PubSubChannels(ctx, "redislock:grant:*").Val(), b.Client(nil)
	require.Len(t, channels, waiting)
	handOverTo(t, a, b)
	endpoint.leadsTo.Store(&b.Addr)
	require.NoError(t, holder.Unlock())
	for _, channel := range channels { // takes the same way as what the release has published
		require.NoError(t, client.Publish(ctx, channel, "no grant").Err())
	}
	eventually(t, "all that was published has arrived", func() bool {
		return strings.Count(log.String(), "grant message not understood") == waiting
	})
	open()

	tokens := []int64{holder.Token()}
	served := make(map[*redislock.Lock]bool)
	for range locks {
		var now *redislock.Lock
		eventually(t, "somebody holds the lock", func() bool {
			for _, l := range locks {
				if l.Token() != 0 && !served[l] {
					now = l
				}
			}
			return now != nil
		})
		require.NoError(t, now.Err())
		require.Equal(t, now.Value(), client.Get(ctx, "key").Val(), "the key is somebody else's")
		for _, l := range locks {
			require.True(t, l == now || served[l] || l.Token() == 0, "two hold it at once")
		}
		tokens = append(tokens, now.Token())
		served[now] = true
		require.NoError(t, now.Unlock())
	}
	require.IsIncreasing(t, tokens)
}

// The keys have moved to another server, which nobody has said, and the old one
// answers every ping of the subscription.
func TestSubscriptionFollowsTheCommands(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		holder := acquire(t, b.manager, "key", time.Hour)
		other := b.another(t)
		waiter := other.manager.Lock(ctx, "key", time.Hour)
		synctest.Wait()

		moved := miniredis.NewMiniRedis()
		moved.ClockTTL(true)
		defer moved.Close()
		old := b.server
		require.NoError(t, moved.Set("key", holder.Value()))
		moved.SetTTL("key", old.TTL("key"))
		queue, _ := redislock.KeysOf("key")
		members, err := old.ZMembers(queue)
		require.NoError(t, err)
		for _, member := range members {
			score, err := old.ZScore(queue, member)
			require.NoError(t, err)
			_, err = moved.ZAdd(queue, score, member)
			require.NoError(t, err)
		}
		b.moveTo(moved)
		other.moveTo(moved)

		require.NoError(t, holder.Unlock())
		began := time.Now()
		require.NoError(t, waiter.Wait().Err)
		require.LessOrEqual(t, time.Since(began), 15*time.Second, "long before the lease would have ended")
		synctest.Wait()
		require.Len(t, moved.PubSubChannels("redislock:grant:*"), 1, "subscribed where the keys are")
		require.NoError(t, waiter.Unlock())
	})
}

// Somebody looks on, as "redis-cli psubscribe '*'" does: that makes no dead waiter
// alive.
func TestDeadWaiterIsSkippedThoughSomebodyWatches(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(nil)
	watcher := client.PSubscribe(ctx, "*")
	defer watcher.Close()
	_, err := watcher.Receive(ctx)
	require.NoError(t, err)
	holder := acquire(t, newManager(t, client), "key", time.Minute)
	queue, _ := redislock.KeysOf("key")
	require.NoError(t, client.ZAdd(ctx, queue, redis.Z{Score: 1, Member: "a-manager-that-died:60000:1:value"}).Err())
	next := newManager(t, client).Lock(ctx, "key", time.Minute)
	awaitWaiters(t, client, "key", 2)
	require.NoError(t, holder.Unlock())
	serve(t, next)
}

// Where nobody in the line can be told, as after a failover that no manager has
// noticed, the line stays as it is, and is served as soon as one is heard.
func TestLineThatNobodyHearsStays(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client)
		queue, shortest := redislock.KeysOf("key")
		for i := range 250 { // more than are looked at together
			require.NoError(t, client.ZAdd(ctx, queue, redis.Z{Score: float64(i), Member: fmt.Sprintf("manager-%d:60000:%d:value-%d", i%3, i, i)}).Err())
		}
		require.NoError(t, client.Set(ctx, shortest, "60000", time.Minute).Err())
		require.NoError(t, client.PExpire(ctx, queue, time.Minute).Err())
		for range 3 {
			l := acquire(t, m, "key", time.Minute)
			require.NoError(t, l.Unlock())
			require.Equal(t, 250, waiters(t, client, "key"))
			require.EqualValues(t, 1, client.Exists(ctx, shortest).Val())
			require.Zero(t, client.Exists(ctx, "key").Val())
		}

		l := acquire(t, m, "key", time.Minute)
		listener := client.Subscribe(ctx, "redislock:grant:manager-1")
		defer listener.Close()
		_, err := listener.Receive(ctx)
		require.NoError(t, err)
		require.NoError(t, l.Unlock())
		require.Equal(t, "value-1", client.Get(ctx, "key").Val())
		require.Equal(t, 248, waiters(t, client, "key"), "the first is skipped, the second served")
		skipped, err := client.ZRange(ctx, redislock.SkippedKeys+"{key}", 0, -1).Result()
		require.NoError(t, err)
		require.Equal(t, []string{"manager-0:60000:0:value-0"}, skipped)
		require.NoError(t, client.Del(ctx, queue, shortest, "key").Err())
	})
}

// Whoever stands in the line alone and cannot be told stands there afterwards as it did
// before, and for as long.
func TestWhoeverIsPutBackKeepsItsTime(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		m := newManager(t, client)
		queue, shortest := redislock.KeysOf("key")
		const member = "a manager:60000:1:value"
		require.NoError(t, client.ZAdd(ctx, queue, redis.Z{Score: 1796032420616427, Member: member}).Err())
		require.NoError(t, client.Set(ctx, shortest, "60000", time.Hour).Err())
		require.NoError(t, client.PExpire(ctx, queue, time.Hour).Err())
		l := acquire(t, m, "key", time.Minute)
		require.NoError(t, l.Unlock())
		stays, err := client.ZRangeWithScores(ctx, queue, 0, -1).Result()
		require.NoError(t, err)
		require.Equal(t, []redis.Z{{Score: 1796032420616427, Member: member}}, stays)
		for _, key := range []string{queue, shortest} {
			left := client.PTTL(ctx, key).Val()
			require.Greater(t, left, 50*time.Minute, key)
			require.LessOrEqual(t, left, time.Hour, key)
		}
		require.NoError(t, client.Del(ctx, queue, shortest).Err())
	})
}

// The user may not ask who listens, as one whose rights are of before: everything
// works, grants are confirmed, and it is said once.
func TestForbiddenToAskWhoListens(t *testing.T) {
	server := redistest.Start(t)
	rules := slices.DeleteFunc(slices.Clone(aclRules), func(rule string) bool { return rule == "+pubsub|numsub" })
	client := aclClient(t, server, rules)
	var log logBuffer
	m := newManager(t, client, redislock.WithPrefix("app:"), redislock.WithLogger(log.logger()))
	m2 := newManager(t, client, redislock.WithPrefix("app:"))
	holder := acquire(t, m2, "key", time.Minute)
	var line turns
	line.t = t
	for i := range 10 {
		of := []*redislock.LockManager{m, m2}[i%2]
		line.add(i, of.Lock(ctx, "key", time.Minute))
		awaitWaiters(t, server.Client(nil), "app:key", i+1)
	}
	require.NoError(t, holder.Unlock())
	line.requireInOrder()
	eventually(t, "said", func() bool { return strings.Count(log.String(), "+pubsub|numsub") == 1 })
	requireClean(t, server.Client(nil))
}

// A user that may not publish to a manager's channel has told nobody: the next in
// line is served, and whoever was passed over comes back to its place.
func TestForbiddenToTellTheNext(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client(nil)
	rules := append(slices.DeleteFunc(slices.Clone(aclRules), func(rule string) bool { return rule[0] == '&' }), "&redislock:grant:")
	m := newManager(t, aclClient(t, server, rules), redislock.WithPrefix("app:"))
	m2 := newManager(t, admin, redislock.WithPrefix("app:"))
	holder := acquire(t, m, "key", 2*time.Second)
	next := m2.Lock(ctx, "key", 2*time.Second)
	awaitWaiters(t, admin, "app:key", 1)
	require.NoError(t, holder.Unlock())
	serve(t, next)
}

// A replica would say whether it hears a manager, and its word is worth nothing.
func TestProbeIsRefusedByAReplica(t *testing.T) {
	master := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	replica := startReplica(t, master)
	probe := func(s *redistest.Server) *redis.Cmd {
		return s.Client(nil).Eval(ctx, redislock.ScriptText("probe.lua"), []string{"redislock:probe"}, "redislock:grant:nobody", "numsub")
	}
	require.ErrorContains(t, probe(replica).Err(), "READONLY")
	reply, err := probe(master).Slice()
	require.NoError(t, err)
	require.Len(t, reply, 3)
	require.Zero(t, reply[0])
}

// Planned failovers, to and fro, amid a crowd: nothing is lost, so each lock has one
// holder, each holder a token above all before, and no call fails.
func TestPlannedFailoversUnderLoad(t *testing.T) {
	servers := []*redistest.Server{redistest.Start(t, "--repl-diskless-sync-delay", "0")}
	servers = append(servers, startReplica(t, servers[0]))
	endpoint := newAddress(servers[0].Addr)
	work := newLoad(t)
	for range 4 {
		m := newManager(t, endpoint.client(t))
		for j := range 8 {
			work.run(m, fmt.Sprint("key", j%4), time.Minute)
		}
	}
	work.goesOn(300)
	for i := range 4 {
		handOverTo(t, servers[i%2], servers[(i+1)%2])
		endpoint.leadsTo.Store(&servers[(i+1)%2].Addr)
		work.goesOn(300)
	}
	work.end()
}

// The same in a cluster, where a replica takes its master's place: what it publishes
// reaches all nodes of the shard.
func TestPlannedFailoversOfAClusterUnderLoad(t *testing.T) {
	c := redistest.StartCluster(t, 3, 1)
	work := newLoad(t)
	for range 4 {
		m := newManager(t, c.Client(nil))
		for j := range 8 {
			work.run(m, fmt.Sprint("key", j%4), time.Minute)
		}
	}
	work.goesOn(300)
	replicas := func() (replicas []*redis.Client) {
		for _, server := range c.Servers {
			node := c.Node(server)
			if values, err := node.InfoMap(ctx, "replication").Result(); err == nil && values["Replication"]["role"] == "slave" {
				replicas = append(replicas, node)
			}
		}
		return replicas
	}
	for range 2 {
		for _, replica := range replicas() {
			promote(t, replica)
			work.goesOn(300)
		}
	}
	work.end()
}

// A replica knows nothing of what its master did just now, or has a history that was
// lost. It refuses to write; and of a key that is not the caller's there it does not say
// that the lock is lost.
func TestReplicaDoesNotTellOfLosses(t *testing.T) {
	server := redistest.Start(t)
	manager := newManager(t, server.Client(nil))
	held, err := manager.TryLock(ctx, "key", time.Minute)
	require.NoError(t, err)

	admin := server.Client(nil)
	require.NoError(t, admin.Del(ctx, "key").Err())
	require.NoError(t, admin.Do(ctx, "replicaof", "127.0.0.1", "1").Err())
	for _, call := range []func(context.Context) error{
		func(ctx context.Context) error { return held.Extend(ctx, time.Minute) },
		held.Release,
	} {
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		err := call(short)
		cancel()
		require.Error(t, err)
		require.NotErrorIs(t, err, redislock.ErrLost)
	}

	require.NoError(t, admin.Do(ctx, "replicaof", "no", "one").Err())
	require.ErrorIs(t, held.Unlock(), redislock.ErrNotHeld)
}
