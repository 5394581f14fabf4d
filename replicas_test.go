package redislock_test

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// slowReplica is within what a client waits for, and longer than a busy machine keeps a
// replica from confirming.
const slowReplica = 2500 * time.Millisecond

// startReplica starts a replica of the server, and returns when it is in sync and
// confirms what it gets: it may take a second more until the server listens to it.
func startReplica(t *testing.T, of *redistest.Server) *redistest.Server {
	host, port, err := net.SplitHostPort(of.Addr)
	require.NoError(t, err)
	replica := redistest.Start(t, "--replicaof", host, port)
	info := replica.Client(nil)
	eventually(t, "the replica is in sync", func() bool {
		values, err := info.InfoMap(ctx, "replication").Result()
		return err == nil && values["Replication"]["master_link_status"] == "up"
	})
	master := of.Client(nil)
	values, err := master.InfoMap(ctx, "replication").Result()
	require.NoError(t, err)
	all, err := strconv.Atoi(values["Replication"]["connected_slaves"])
	require.NoError(t, err)
	eventually(t, "the replica confirms", func() bool {
		pipe := master.Pipeline() // WAIT is about its own connection
		pipe.Set(ctx, "warm", "", 0)
		pipe.Del(ctx, "warm")
		confirmed := pipe.Do(ctx, "wait", all, 1000)
		_, err := pipe.Exec(ctx)
		return err == nil && confirmed.Val() == int64(all)
	})
	return replica
}

// When a caller has the lock, so have the replicas; however it came by it.
func TestAcquisitionIsOnTheReplicas(t *testing.T) {
	server := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	replicas := []*redis.Client{startReplica(t, server).Client(nil), startReplica(t, server).Client(nil)}
	client := server.Client(nil)
	option := redislock.WithReplicas(2, slowReplica)
	a, b := newManager(t, client, option), newManager(t, server.Client(nil), option)
	has := func(l *redislock.Lock) {
		t.Helper()
		for _, replica := range replicas {
			value, err := replica.Get(ctx, "key").Result()
			require.NoError(t, err)
			require.Equal(t, l.Value(), value)
		}
	}
	for range 20 {
		claimed := acquire(t, a, "key", time.Minute)
		has(claimed)
		handed := a.Lock(ctx, "key", time.Minute)
		awaitWaiters(t, client, "key", 1)
		granted := b.Lock(ctx, "key", time.Minute)
		awaitWaiters(t, client, "key", 2)
		require.NoError(t, claimed.Unlock())
		require.NoError(t, soon(t, handed).Err)
		has(handed)
		require.NoError(t, handed.Unlock())
		require.NoError(t, soon(t, granted).Err)
		has(granted)
		require.NoError(t, granted.Unlock())
		tried, err := b.TryLock(ctx, "key", time.Minute)
		require.NoError(t, err)
		has(tried)
		require.NoError(t, tried.Unlock())
	}
	requireClean(t, client)
}

// An acquisition that too few replicas have is given back, to the next in line.
func TestAcquisitionThatReplicasLackIsGivenBack(t *testing.T) {
	server := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	startReplica(t, server)
	hung := startReplica(t, server)
	client := server.Client(nil)
	all := newManager(t, client, redislock.WithReplicas(2, 50*time.Millisecond))
	one := newManager(t, server.Client(nil), redislock.WithReplicas(1, slowReplica))
	hung.Freeze()
	require.NoError(t, client.Incr(ctx, "something").Err()) // that it lacks

	lacking := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, redislock.ErrNotAcquired)
		require.Regexp(t, "[01] of 2 replicas confirmed it within 50ms$", err.Error())
	}
	lacking(soon(t, all.Lock(ctx, "key", time.Minute)).Err)
	givenBack := func() bool { return client.Exists(ctx, "key").Val() == 0 }
	eventually(t, "given back", givenBack)
	_, err := all.TryLock(ctx, "key", time.Minute)
	lacking(err)
	eventually(t, "given back", givenBack)

	holder := acquire(t, one, "key", time.Minute)
	told := all.Lock(ctx, "key", time.Minute)
	awaitWaiters(t, client, "key", 1)
	handed := all.Lock(ctx, "key", time.Minute) // by the release of the one before
	awaitWaiters(t, client, "key", 2)
	next := one.Lock(ctx, "key", time.Minute)
	awaitWaiters(t, client, "key", 3)
	require.NoError(t, holder.Unlock())
	lacking(soon(t, told).Err)
	lacking(soon(t, handed).Err)
	serve(t, next)

	hung.Thaw()
	eventually(t, "the replica catches up", func() bool {
		l, err := all.TryLock(ctx, "key", time.Minute)
		return err == nil && l.Unlock() == nil
	})
}

// WAIT goes to the server that has the key, also if that is another one by now.
func TestAcquisitionIsOnTheReplicasOfACluster(t *testing.T) {
	c := redistest.StartCluster(t, 3, 1)
	client := c.Client(nil)
	m := newManager(t, c.Client(nil), redislock.WithReplicas(1, slowReplica))
	keys := []string{"a", "b", "c", "d", "e", "f"}
	for _, key := range keys {
		serve(t, m.Lock(ctx, key, time.Minute))
	}
	slot := slotOf(t, client, "a")
	for range 2 {
		held := acquire(t, m, "{a}held", time.Minute)
		require.NoError(t, c.Move(slot, other(t, c, slot)))
		owner := ownerOf(t, c, slot)
		for _, key := range keys {
			serve(t, m.Lock(ctx, key, time.Minute))
		}
		for i, replica := range c.Servers {
			if i < 3 || c.Servers[(i-3)%3] != owner {
				continue
			}
			l := acquire(t, m, "a", time.Minute)
			node := c.Node(replica).Conn()
			require.NoError(t, node.ReadOnly(ctx).Err())
			value, err := node.Get(ctx, "a").Result()
			require.NoError(t, err)
			require.Equal(t, l.Value(), value)
			require.NoError(t, node.Close())
			require.NoError(t, l.Unlock())
		}
		require.NoError(t, held.Unlock())
	}

	// Only the replica of the server that wrote counts.
	owner := ownerOf(t, c, slot)
	for i, replica := range c.Servers[3:] {
		if c.Servers[i] == owner {
			require.NoError(t, replica.Freeze())
		}
	}
	require.NoError(t, client.Incr(ctx, "{a}something").Err()) // that it lacks
	hasty := newManager(t, c.Client(nil), redislock.WithReplicas(1, 200*time.Millisecond))
	for range 5 {
		require.ErrorContains(t, soon(t, hasty.Lock(ctx, "a", time.Minute)).Err, "0 of 1 replicas")
	}
}

func TestBadReplicaOptions(t *testing.T) {
	bad := func(client redis.UniversalClient, n int, timeout time.Duration, words string) {
		t.Helper()
		m, err := redislock.NewLockManager(client, redislock.WithReplicas(n, timeout))
		require.Nil(t, m)
		require.ErrorIs(t, err, redislock.ErrInvalidArgument)
		require.ErrorContains(t, err, words)
	}
	single := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ReadTimeout: time.Second})
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}, ReadTimeout: time.Second})
	for _, client := range []redis.UniversalClient{single, cluster} {
		bad(client, 0, time.Millisecond, "replicas: 0")
		bad(client, -1, time.Millisecond, "replicas: -1")
		bad(client, 1, time.Millisecond-1, "timeout is 999.999µs")
		bad(client, 1, time.Second, "ReadTimeout 1s")
		require.NoError(t, client.Close())
	}
}

// A timeout of WithReplicas below the client's ReadTimeout is waited for, however long
// the library waits for Redis else, and whatever the client's other time-outs are.
func TestReplicasAreWaitedForAsLongAsIsSaid(t *testing.T) {
	for name, change := range map[string]func(*redis.Options){
		"a long ReadTimeout, a short WriteTimeout": func(o *redis.Options) { o.ReadTimeout, o.WriteTimeout = time.Minute, 100*time.Millisecond },
		"no ReadTimeout": func(o *redis.Options) { o.ReadTimeout, o.WriteTimeout = -1, 100*time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, redistest.Start(t).Client(change), redislock.WithReplicas(1, time.Second))
			err := soon(t, m.Lock(ctx, "key", time.Minute)).Err
			require.ErrorIs(t, err, redislock.ErrNotAcquired)
			require.ErrorContains(t, err, "0 of 1 replicas confirmed it within 1s")
		})
	}
}

// Somebody ends a WAIT by CLIENT UNBLOCK: the replicas are asked again, and who was
// the next in line stays it.
func TestWaitForReplicasThatIsEndedIsBegunAnew(t *testing.T) {
	server := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	replica := startReplica(t, server)
	client := server.Client(nil)
	patient := func(o *redis.Options) { o.ReadTimeout = time.Minute }
	option := redislock.WithReplicas(1, patience)
	m, other := newManager(t, server.Client(patient), option), newManager(t, server.Client(patient), option)
	holder := acquire(t, m, "key", time.Minute)
	next := other.Lock(ctx, "key", time.Minute)
	awaitWaiters(t, client, "key", 1)
	replica.Freeze()
	require.NoError(t, client.Incr(ctx, "something").Err()) // that it lacks
	go func() { _ = holder.Unlock() }()
	ended := 0
	eventually(t, "a WAIT is ended", func() bool {
		for _, line := range strings.Split(client.ClientList(ctx).Val(), "\n") {
			id, _, _ := strings.Cut(strings.TrimPrefix(line, "id="), " ")
			if strings.Contains(line, "cmd=wait") && client.Do(ctx, "client", "unblock", id, "error").Val() == int64(1) {
				ended++
			}
		}
		return ended > 0
	})
	replica.Thaw()
	require.NoError(t, soon(t, next).Err)
	require.NoError(t, next.Unlock())
}
