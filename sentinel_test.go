package redislock_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redisserver"
	"github.com/redislock/redislock/internal/redistest"
)

// failOver kills the master, and returns a client of the one that takes its place.
func failOver(t *testing.T, s *redistest.Sentinels) *redis.Client {
	t.Helper()
	victim, err := s.Current()
	require.NoError(t, err)
	victim.Kill()
	return s.Node(heirOf(t, s, victim))
}

func heirOf(t *testing.T, s *redistest.Sentinels, victim *redisserver.Server) (heir *redisserver.Server) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		var err error
		if heir, err = s.Current(); err == nil && heir != victim {
			return heir
		}
		require.True(t, time.Now().Before(end), "no replica takes over")
	}
}

// kill -9 of the master under load: all go on with the new one, tokens rise, and a
// line whose holder is still there keeps its order over all managers.
func TestSentinelFailover(t *testing.T) {
	s := redistest.StartSentinels(t, 2, 3)
	work := newLoad(t)
	work.forgets = true
	var managers [3]*redislock.LockManager
	for i := range managers {
		managers[i] = newManager(t, s.Client(nil))
		for j := range 12 {
			work.run(managers[i], "key"+strconv.Itoa(j%6), 3*time.Second)
		}
	}
	client := s.Client(nil)
	holder := acquire(t, managers[0], "line", time.Minute)
	order := &turns{t: t}
	for i := range 12 {
		order.add(i, managers[i%3].Lock(ctx, "line", time.Minute))
		awaitWaiters(t, client, "line", i+1)
	}
	work.goesOn(1000)
	require.NoError(t, waitForReplicas(client, 2))
	heir := failOver(t, s)
	eventually(t, "all listen to the heir", func() bool {
		channels, err := heir.PubSubChannels(ctx, "redislock:grant:*").Result()
		return err == nil && len(channels) == len(managers)
	})
	work.goesOn(1000)
	require.NoError(t, holder.Unlock())
	order.requireInOrder()
	work.end()
}

// waitForReplicas waits until the replicas have all that the master has.
func waitForReplicas(client *redis.Client, n int) error {
	_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Incr(ctx, "a write")
		pipe.Do(ctx, "wait", n, 5000)
		pipe.Del(ctx, "a write")
		return nil
	})
	return err
}

// A lock that all replicas have confirmed outlasts the master.
func TestSentinelKeepsWhatReplicasHave(t *testing.T) {
	s := redistest.StartSentinels(t, 2, 3)
	m := newManager(t, s.Client(nil), redislock.WithReplicas(2, slowReplica))
	other := newManager(t, s.Client(nil))
	locks := make([]*redislock.Lock, 50)
	for i := range locks {
		locks[i] = acquire(t, m, "key"+strconv.Itoa(i), time.Minute)
	}
	heir := failOver(t, s)
	for _, l := range locks {
		value, err := heir.Get(ctx, l.Key()).Result()
		require.NoError(t, err)
		require.Equal(t, l.Value(), value)
		_, err = other.TryLock(ctx, l.Key(), time.Minute)
		require.ErrorIs(t, err, redislock.ErrNotAcquired)
		require.NoError(t, l.Unlock())
	}
}

// A lock that no replica got is forgotten: another gets it, with a higher token,
// and the holder is told.
func TestSentinelForgetsWhatReplicasLack(t *testing.T) {
	s := redistest.StartSentinels(t, 2, 3)
	m, other := newManager(t, s.Client(nil)), newManager(t, s.Client(nil))
	serve(t, m.Lock(ctx, "key", time.Minute))
	require.NoError(t, waitForReplicas(s.Client(nil), 2))
	for _, replica := range s.Replicas {
		require.NoError(t, replica.Freeze())
	}
	// What is under way to them would reach them all the same.
	require.NoError(t, s.Node(s.Master).Do(ctx, "client", "kill", "type", "replica").Err())
	l := acquire(t, m, "key", 30*time.Second, redislock.WithAutoRenew(time.Hour))
	s.Master.Kill()
	for _, replica := range s.Replicas {
		require.NoError(t, replica.Thaw())
	}
	// A call that finds nobody there fails after seconds, which the failover may take.
	var second *redislock.Lock
	eventually(t, "another has the lock", func() bool {
		second = other.Lock(ctx, "key", time.Minute)
		return second.Wait().OK()
	})
	require.Greater(t, second.Token(), l.Token())
	select {
	case <-l.Done():
		require.ErrorIs(t, l.Err(), redislock.ErrLost)
	case <-time.After(patience): // it was to be renewed before
		t.Fatal("the holder was not told")
	}
	require.ErrorIs(t, l.Unlock(), redislock.ErrNotHeld)
	require.NoError(t, second.Unlock())
}
