package redislock_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// A Redis that takes no writes for a while is asked again: to release as well.
func TestUnlockIsTriedAgainByARedisThatTakesNoWrites(t *testing.T) {
	for name, set := range map[string]func(refuse bool) []any{
		"NOREPLICAS": func(refuse bool) []any {
			return []any{"config", "set", "min-replicas-to-write", map[bool]int{true: 1}[refuse]}
		},
		"READONLY": func(refuse bool) []any {
			if refuse {
				return []any{"replicaof", "127.0.0.1", "1"}
			}
			return []any{"replicaof", "no", "one"}
		},
	} {
		for line := range 2 { // the script's first write is another if there is one
			t.Run(fmt.Sprintf("%s/%d", name, line), func(t *testing.T) {
				client := redistest.Start(t).Client(nil)
				m := newManager(t, client)
				l := acquire(t, m, "key", time.Minute)
				var waiting []*redislock.Lock
				for range line {
					waiting = append(waiting, m.Lock(ctx, "key", time.Minute))
				}
				awaitWaiters(t, client, "key", line)
				require.NoError(t, client.Do(ctx, set(true)...).Err())
				time.AfterFunc(300*time.Millisecond, func() { client.Do(ctx, set(false)...) })
				require.NoError(t, l.Unlock())
				for _, next := range waiting {
					serve(t, next)
				}
				requireClean(t, client)
			})
		}
	}
}

// What Redis has refused is not asked for again once its caller has gone: there is
// nothing to clean up after that then.
func TestRefusedAcquireOfOneWhoHasGone(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		require.NoError(t, acquire(t, b.manager, "warm", time.Minute).Unlock())
		b.server.FlushAll()
		var sent atomic.Int32
		b.client.AddHook(pipelineHook(func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
			sent.Add(1)
			return next(ctx, cmds)
		}))
		b.server.SetError("LOADING Redis is loading the dataset in memory")
		leaving, cancel := context.WithCancel(ctx)
		l := b.manager.Lock(leaving, "key", time.Minute)
		synctest.Wait()
		cancel()
		require.ErrorIs(t, l.Wait().Err, context.Canceled)
		b.server.SetError("")
		time.Sleep(time.Minute)
		require.EqualValues(t, 1, sent.Load())
		require.Empty(t, b.server.Keys())
	})
}
