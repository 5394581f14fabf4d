package redislock_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// pauseHook stops a pipeline that sends a claim, before it is sent or before its
// reply is read, as a slow network or a stopped process would.
type pauseHook struct {
	before, after chan struct{} // nil: no pause
	reached       chan struct{}
}

func (h *pauseHook) pass(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
	claims := slices.ContainsFunc(cmds, func(cmd redis.Cmder) bool { return cmd.Name() == "set" })
	if claims && h.before != nil {
		h.reached <- struct{}{}
		<-h.before
	}
	err := next(ctx, cmds)
	if claims && h.after != nil {
		h.reached <- struct{}{}
		<-h.after
	}
	return err
}

// A claim may be sent before Redis loses everything, and arrive after another key
// was claimed: its token must not be lower than those before the loss. The model of
// the protocol found it (docs/model.md).
func TestTokensRiseOverAFlushAmidClaims(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		slow, stopped := b.another(t), b.another(t)
		require.NoError(t, acquire(t, slow.manager, "warm b", time.Minute).Unlock())
		require.NoError(t, acquire(t, stopped.manager, "warm c", time.Minute).Unlock())
		time.Sleep(20 * time.Millisecond) // so that claims raise the fence again

		// B's claim is on its way for a while.
		hookB := &pauseHook{before: make(chan struct{}), reached: make(chan struct{}, 100)}
		slow.client.AddHook(pipelineHook(hookB.pass))
		lockB := slow.manager.Lock(ctx, "key", time.Minute)
		<-hookB.reached
		time.Sleep(time.Millisecond)

		// A holds and releases meanwhile; its first token is drawn by script.
		lockA := acquire(t, b.manager, "key", time.Minute)
		first := lockA.Token()
		require.NoError(t, lockA.Unlock())

		// Redis loses everything. Another key is claimed, by a process that stops before
		// it can see that there was no fence.
		b.server.FlushAll()
		hookC := &pauseHook{after: make(chan struct{}), reached: make(chan struct{}, 100)}
		stopped.client.AddHook(pipelineHook(hookC.pass))
		lockC := stopped.manager.Lock(ctx, "other key", time.Minute)
		<-hookC.reached
		close(hookB.before)
		r := lockB.Wait()
		close(hookC.after)
		require.NoError(t, lockC.Wait().Err)
		require.NoError(t, r.Err)
		require.NoError(t, lockB.Unlock())
		require.NoError(t, lockC.Unlock())
		require.Greater(t, r.Token, first, "the later holder has the lower token")
	})
}

// Likewise, where nobody need raise the fence again so soon: the other claim begins a
// fence far too low, and the claim counts on from there.
func TestTokensRiseOverAFenceThatAClaimHasBegun(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		other := b.another(t)
		for range 2 { // the first by script
			require.NoError(t, acquire(t, b.manager, "warm", time.Minute).Unlock())
			require.NoError(t, acquire(t, other.manager, "warm", time.Minute).Unlock())
		}
		time.Sleep(time.Millisecond)
		first := acquire(t, b.manager, "key", time.Minute)
		require.NoError(t, first.Unlock())

		b.server.FlushAll()
		stop := &pauseHook{after: make(chan struct{}), reached: make(chan struct{}, 100)}
		other.client.AddHook(pipelineHook(stop.pass))
		lockC := other.manager.Lock(ctx, "other key", time.Minute)
		<-stop.reached
		begun, err := b.server.Get(redislock.FenceKey)
		require.NoError(t, err)
		require.Equal(t, "1", begun, "the claim was to begin a fence")
		later := acquire(t, b.manager, "key", time.Minute)
		close(stop.after)
		synctest.Wait()
		require.Greater(t, later.Token(), first.Token(), "the later holder has the lower token")
		require.Greater(t, lockC.Token(), first.Token())
		require.NoError(t, lockC.Unlock())
		require.NoError(t, later.Unlock())
	})
}

// Redis may lose everything also between the commands of one claim, if they came in
// two packets: after the fence was raised for it, or after it has set the key.
func TestTokensRiseOverAFlushWithinAClaim(t *testing.T) {
	for commands := 1; commands <= 2; commands++ {
		t.Run(fmt.Sprint(commands), func(t *testing.T) {
			server := redistest.Start(t)
			direct, cut := server.Client(nil), server.Client(nil)
			lockA := acquire(t, newManager(t, direct), "key", time.Minute)
			first := lockA.Token()
			require.NoError(t, lockA.Unlock())

			var flushed atomic.Bool
			cut.AddHook(pipelineHook(func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
				if len(cmds) != 3 || cmds[1].Name() != "set" || flushed.Swap(true) {
					return next(ctx, cmds)
				}
				err := next(ctx, cmds[:commands])
				require.NoError(t, direct.FlushAll(ctx).Err())
				if err == nil {
					err = next(ctx, cmds[commands:])
				}
				return err
			}))
			m := newManager(t, cut)
			require.NoError(t, acquire(t, m, "warm", time.Minute).Unlock()) // by script
			lockB := acquire(t, m, "key", time.Minute)
			require.True(t, flushed.Load())
			require.Greater(t, lockB.Token(), first, "the later holder has the lower token")
			require.NoError(t, lockB.Unlock())
			requireClean(t, direct)
		})
	}
}

// Likewise a claim that does not get the key.
func TestFenceThatAVainClaimHasBegunGoesAtLast(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		inBubble(t, func(t *testing.T, b *bubble) {
			for range 2 { // the first by script
				require.NoError(t, acquire(t, b.manager, "warm", time.Minute).Unlock())
			}
			b.server.FlushAll()
			w := newWire(b)
			w.next.Store(&fate{after: time.Second})
			if !leaves {
				require.NoError(t, b.server.Set("key", "foreign"))
			}
			short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			defer cancel()
			l := b.manager.Lock(short, "key", time.Minute)
			require.ErrorIs(t, l.Wait().Err, context.DeadlineExceeded)
			begun, err := b.server.Get(redislock.FenceKey)
			require.NoError(t, err)
			require.Equal(t, "1", begun, "the claim was to begin a fence")
			time.Sleep(3 * time.Second)
			require.Equal(t, 24*time.Hour, b.server.TTL(redislock.FenceKey).Round(time.Minute))
		})
	}
}

// A claim that begins a fence sees to it that the fence does not stay for ever.
func TestFenceThatAClaimHasBegunGoesAtLast(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		require.NoError(t, acquire(t, b.manager, "key", time.Minute).Unlock())
		b.server.FlushAll()
		require.NoError(t, acquire(t, b.manager, "key", time.Minute).Unlock())
		require.Equal(t, 24*time.Hour, b.server.TTL(redislock.FenceKey))
	})
}
