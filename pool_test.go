package redislock_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// A client may have one connection and no more. Subscriptions are made over others, which
// do not count, so nothing that a manager does waits for something else of its own: not
// the requests for the subscription, nor those that see to the server's configuration,
// nor the copies of what is slow.
func TestOneConnectionIsEnough(t *testing.T) {
	one := func(o *redis.Options) { o.PoolSize = 1 }
	single := func(t *testing.T) func() redis.UniversalClient {
		server := redistest.Start(t)
		return func() redis.UniversalClient { return server.Client(one) }
	}
	cluster := func(t *testing.T) func() redis.UniversalClient {
		c := redistest.StartCluster(t, 3, 0)
		return func() redis.UniversalClient {
			return c.Client(func(o *redis.ClusterOptions) { o.PoolSize = 1 })
		}
	}
	for name, start := range map[string]func(t *testing.T) func() redis.UniversalClient{"single": single, "cluster": cluster} {
		t.Run(name, func(t *testing.T) {
			connect := start(t)
			var clients []redis.UniversalClient
			var managers []*redislock.LockManager
			for range 2 {
				client := connect()
				clients = append(clients, client)
				managers = append(managers, newManager(t, client, redislock.WithKeyspaceEvents(redislock.KeyspaceRequired)))
			}
			a, b := managers[0], managers[1]
			watcher := connect()

			renewed := acquire(t, a, "renewed", 10*time.Second, redislock.WithAutoRenew(time.Hour))
			until := renewed.ValidUntil()
			holder := acquire(t, a, "key", time.Minute)
			require.NoError(t, holder.Extend(ctx, 2*time.Minute))
			_, err := b.TryLock(ctx, "key", time.Minute)
			require.ErrorIs(t, err, redislock.ErrNotAcquired)
			var waiting []*redislock.Lock
			for i := range 20 {
				waiting = append(waiting, managers[i%2].Lock(ctx, "key", time.Minute))
				awaitWaiters(t, watcher, "key", i+1)
			}
			leaves, cancel := context.WithCancel(ctx)
			left := b.Lock(leaves, "key", time.Minute)
			awaitWaiters(t, watcher, "key", 21)
			cancel()
			require.ErrorIs(t, soon(t, left).Err, context.Canceled)
			require.NoError(t, holder.Unlock())
			for _, l := range waiting {
				serve(t, l)
			}

			// As many at once as there are: they wait for the connection, and for each other.
			var served atomic.Int32
			allAtOnce(t, a, 500, func(i int) string { served.Add(1); return []string{"x", "y", "z"}[i%3] })
			require.EqualValues(t, 500, served.Load())

			eventually(t, "it is renewed", func() bool { return renewed.ValidUntil().After(until) })
			require.NoError(t, renewed.Err())
			require.NoError(t, renewed.Unlock())
			waiter := b.Lock(ctx, "key", time.Minute)
			require.NoError(t, soon(t, waiter).Err)
			next := a.Lock(ctx, "key", time.Minute)
			awaitWaiters(t, watcher, "key", 1)
			require.NoError(t, a.Close())
			require.ErrorIs(t, soon(t, next).Err, redislock.ErrClosed)
			require.NoError(t, waiter.Unlock())
			require.NoError(t, b.Close())
			for _, client := range clients {
				if c, ok := client.(*redis.Client); ok {
					require.LessOrEqual(t, c.PoolStats().TotalConns, uint32(1), "a subscription came out of the pool")
				}
			}
		})
	}
}
