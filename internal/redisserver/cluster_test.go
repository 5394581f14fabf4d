package redisserver_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock/internal/redisserver"
	"github.com/redislock/redislock/internal/redistest"
)

// eventually waits for a condition, for as long as a very busy machine may need.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func owner(t *testing.T, c *redistest.Cluster, slot int) *redisserver.Server {
	t.Helper()
	s, err := c.Owner(slot)
	require.NoError(t, err)
	return s
}

// slotOf has Redis count: the tests know no slot by themselves.
func slotOf(t *testing.T, client *redis.Client, key string) int {
	t.Helper()
	slot, err := client.ClusterKeySlot(context.Background(), key).Result()
	require.NoError(t, err)
	return int(slot)
}

// moved is what a server says of a key whose slot another one has.
func moved(slot int, to *redisserver.Server) string { return fmt.Sprintf("MOVED %d %s", slot, to.Addr) }

func TestClusterIsWholeWhenStarted(t *testing.T) {
	ctx := context.Background()
	c := redistest.StartCluster(t, 3, 1)
	require.Len(t, c.Addrs(), 6)
	for i, s := range c.Servers {
		node := c.Node(s)
		info := node.ClusterInfo(ctx).Val()
		for _, line := range []string{"cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:6", "cluster_size:3"} {
			require.Contains(t, info, line, s.Addr)
		}
		replication := node.Info(ctx, "replication").Val()
		if i < 3 {
			require.Contains(t, replication, "role:master")
			require.Contains(t, replication, "connected_slaves:1")
		} else {
			require.Contains(t, replication, "role:slave")
			require.Contains(t, replication, "master_port:"+portOf(c.Servers[i-3]))
			require.Contains(t, replication, "master_link_status:up")
		}
	}
	for slot, master := range map[int]int{0: 0, 5460: 0, 5461: 1, 10921: 1, 10922: 2, 16383: 2} {
		require.Same(t, c.Servers[master], owner(t, c, slot), slot)
	}
	client := c.Client(nil)
	for i := range 100 {
		require.NoError(t, client.Set(ctx, strconv.Itoa(i), i, 0).Err())
	}
	for _, s := range c.Servers[:3] {
		require.NotZero(t, c.Node(s).DBSize(ctx).Val(), s.Addr)
	}

	c.Kill()
	for _, s := range c.Servers {
		require.True(t, gone(s), s.Addr)
	}
	_, err := c.Owner(0)
	require.ErrorContains(t, err, "nobody answers")
}

func TestSlotMovesInSteps(t *testing.T) {
	ctx := context.Background()
	c := redistest.StartCluster(t, 3, 0)
	source, target, other := c.Servers[0], c.Servers[1], c.Servers[2]
	slot := slotOf(t, c.Node(source), "{a}")
	if from := owner(t, c, slot); from != source {
		source = from
		target, other = c.Servers[0], c.Servers[1]
		if from == c.Servers[1] {
			other = c.Servers[2]
		}
	}
	from, to := c.Node(source), c.Node(target)
	for i := range 250 { // more than MoveKeys takes at a time
		require.NoError(t, from.Set(ctx, fmt.Sprintf("{a}%d", i), i, time.Hour).Err())
	}

	require.NoError(t, c.BeginMove(slot, target))
	require.Same(t, source, owner(t, c, slot))
	require.Equal(t, "7", from.Get(ctx, "{a}7").Val())
	require.EqualError(t, from.Get(ctx, "{a}none").Err(), fmt.Sprintf("ASK %d %s", slot, target.Addr))
	require.ErrorContains(t, c.EndMove(slot, target), "still has keys")
	require.Same(t, source, owner(t, c, slot))

	require.NoError(t, c.MoveKeys(slot, target))
	require.Same(t, source, owner(t, c, slot))
	require.Zero(t, from.DBSize(ctx).Val())
	require.EqualValues(t, 250, to.DBSize(ctx).Val())

	require.NoError(t, c.EndMove(slot, target))
	require.Same(t, target, owner(t, c, slot))
	require.EqualError(t, from.Get(ctx, "{a}7").Err(), moved(slot, target))
	require.EqualError(t, c.Node(other).Get(ctx, "{a}7").Err(), moved(slot, target))
	require.Equal(t, "7", to.Get(ctx, "{a}7").Val())
	require.Positive(t, to.PTTL(ctx, "{a}7").Val())

	require.NoError(t, c.Move(slot, target), "it is there already")
	require.NoError(t, c.Move(slot, source))
	require.Same(t, source, owner(t, c, slot))
	require.EqualValues(t, 250, from.DBSize(ctx).Val())
	require.EqualError(t, to.Get(ctx, "{a}7").Err(), moved(slot, source))
}

func TestSlotMovesToAndFroWhileKeysAreWritten(t *testing.T) {
	ctx := context.Background()
	c := redistest.StartCluster(t, 3, 0)
	client := c.Client(nil)
	slot := slotOf(t, c.Node(c.Servers[0]), "{a}")
	stop, written := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { written <- n }()
		for ; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := client.Set(ctx, fmt.Sprintf("{a}%d", n), n, 0).Err(); err != nil {
				t.Errorf("write %d: %v", n, err)
				return
			}
		}
	}()
	for i := range 12 {
		to := c.Servers[i%3]
		require.NoError(t, c.Move(slot, to))
		require.Same(t, to, owner(t, c, slot))
	}
	close(stop)
	n := <-written
	require.Positive(t, n)
	keys, err := c.Node(owner(t, c, slot)).DBSize(ctx).Result()
	require.NoError(t, err)
	require.EqualValues(t, n, keys)
}

func TestReplicaTakesOverFromAMasterThatIsKilled(t *testing.T) {
	ctx := context.Background()
	c := redistest.StartCluster(t, 3, 1)
	client := c.Client(func(o *redis.ClusterOptions) {
		o.ClusterStateReloadInterval = 100 * time.Millisecond // not after 60 s: go-redis looks no sooner when a node is gone
	})
	slot := slotOf(t, c.Node(c.Servers[0]), "key")
	master := owner(t, c, slot)
	replica := replicaOf(c, master)
	require.NoError(t, client.Set(ctx, "key", "value", 0).Err())
	copied := c.Node(replica)
	eventually(t, "the replica has the key", func() bool { return copied.DBSize(ctx).Val() == 1 })
	node := c.Node(master)
	id := node.ClusterMyID(ctx).Val()

	master.Kill()
	eventually(t, "the replica is the owner", func() bool { s, err := c.Owner(slot); return err == nil && s == replica })
	eventually(t, "the key is there", func() bool { return client.Get(ctx, "key").Val() == "value" })

	require.NoError(t, master.Run())
	require.Equal(t, id, c.Node(master).ClusterMyID(ctx).Val())
	eventually(t, "the killed one is a replica in sync", func() bool { return follows(node, replica) })
	require.Same(t, replica, owner(t, c, slot))
}

func TestReplicaTakesOverFromAMasterThatIsFrozen(t *testing.T) {
	c := redistest.StartCluster(t, 3, 1)
	master, replica := c.Servers[2], c.Servers[5]
	require.Same(t, replica, replicaOf(c, master))
	require.NoError(t, master.Freeze())
	eventually(t, "the replica is the owner", func() bool { s, err := c.Owner(16383); return err == nil && s == replica })
	require.NoError(t, master.Thaw())
	node := c.Node(master)
	eventually(t, "the frozen one is a replica in sync", func() bool { return follows(node, replica) })
}

func TestNodeJoinsAndIsGivenASlot(t *testing.T) {
	ctx := context.Background()
	c := redistest.StartCluster(t, 3, 0)
	client := c.Client(nil)
	require.NoError(t, client.Set(ctx, "key", "value", 0).Err())
	joined, err := c.Join()
	require.NoError(t, err)
	require.Len(t, c.Servers, 4)
	require.Same(t, c.Servers[3], joined)
	for _, s := range c.Servers {
		info := c.Node(s).ClusterInfo(ctx).Val()
		require.Contains(t, info, "cluster_state:ok")
		require.Contains(t, info, "cluster_known_nodes:4")
	}

	slot := slotOf(t, c.Node(joined), "key")
	require.NoError(t, c.Move(slot, joined))
	require.Same(t, joined, owner(t, c, slot))
	require.Equal(t, "value", client.Get(ctx, "key").Val())
	require.Equal(t, "value", c.Node(joined).Get(ctx, "key").Val())

	c.Servers[0].Kill() // of four, three are a majority; and they can be joined
	_, err = c.Join()
	require.NoError(t, err)
}

// replicaOf returns the one replica that a master of a cluster of three was started with.
func replicaOf(c *redistest.Cluster, master *redisserver.Server) *redisserver.Server {
	for i, s := range c.Servers[:3] {
		if s == master {
			return c.Servers[3+i]
		}
	}
	return nil
}
