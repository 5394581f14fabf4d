package redislock_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
)

// What has piled up while Redis stood still goes out in batches of bounded size, and
// whoever asks for a key after its release was asked for gets it, although many
// batches are needed and two are under way at a time.
func TestNobodyOvertakesTheReleaseThatHeCountsOn(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		const many = 2500
		var locks []*redislock.Lock
		for i := range many {
			locks = append(locks, acquire(t, b.manager, fmt.Sprint("key", i), time.Hour))
		}
		blockers := []*redislock.Lock{acquire(t, b.manager, "blocker 1", time.Hour), acquire(t, b.manager, "blocker 2", time.Hour)}

		open := make(chan struct{})
		var sent atomic.Int32
		var mu sync.Mutex
		most := 0
		b.client.AddHook(pipelineHook(func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
			if isGreeting(cmds) {
				return next(ctx, cmds)
			}
			locks := 0
			for _, cmd := range cmds {
				if args := cmd.Args(); args[0] == "eval" || args[0] == "evalsha" {
					locks += args[2].(int) / 2 // free.lua, most of them
				}
			}
			mu.Lock()
			most = max(most, locks)
			mu.Unlock()
			switch n := sent.Add(1); {
			case n <= 2:
				<-open
			case n == 3: // the first full one
				time.Sleep(200 * time.Millisecond)
			}
			return next(ctx, cmds)
		}))
		var wg sync.WaitGroup
		unlock := func(l *redislock.Lock) {
			wg.Go(func() {
				if err := l.Unlock(); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		for _, l := range blockers {
			unlock(l)
		}
		for _, l := range locks {
			unlock(l)
		}
		for i := range 100 { // their releases are among the first
			wg.Go(func() {
				l, err := b.manager.TryLock(ctx, fmt.Sprint("key", i), time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				if err := l.Unlock(); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(open)
		wg.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.Less(t, most, many/2, "a batch without bounds")
	})
}

// Very many waiters are turned away by Close, and leave nothing behind.
func TestCloseTurnsVeryManyAway(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		require.NoError(t, b.client.Set(ctx, "key", "foreign", time.Hour).Err())
		other := b.another(t)
		var waiting []*redislock.Lock
		for range 2500 {
			waiting = append(waiting, other.manager.Lock(ctx, "key", time.Hour))
		}
		time.Sleep(time.Second)
		require.Equal(t, len(waiting), waiters(t, b.client, "key"))
		require.NoError(t, other.manager.Close())
		for _, l := range waiting {
			require.ErrorIs(t, l.Wait().Err, redislock.ErrClosed)
		}
		require.Zero(t, waiters(t, b.client, "key"))
		require.ErrorIs(t, other.manager.Lock(ctx, "key", time.Hour).Wait().Err, redislock.ErrClosed)
	})
}
