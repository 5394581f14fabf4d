//go:build finding

package redislock_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock/internal/redistest"
)

// pauseHook stops a pipeline that sends a claim, before it is sent or before its
// reply is read, as a slow network or a stopped process would.
type pauseHook struct {
	before, after chan struct{} // nil: no pause
	reached       chan struct{}
}

func (h *pauseHook) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (h *pauseHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (h *pauseHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		claims := false
		for _, cmd := range cmds {
			claims = claims || cmd.Name() == "zincrby"
		}
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
}

// Found by the model (test/model, claim-begins-the-fence): after a FLUSHALL the
// ZINCRBY of a claim of any key begins the fence at 1. Until that claim draws
// again by script, the next claim raises the fence to where its manager knew the
// clock to be when it sent, which may be before the last token was drawn.
func TestTokensRiseOverAFlushAmidClaims(t *testing.T) {
	server := redistest.Start(t)
	direct := server.Client(nil)
	slow, stopped := server.Client(nil), server.Client(nil)
	a, b, c := newManager(t, direct), newManager(t, slow), newManager(t, stopped)
	require.NoError(t, acquire(t, b, "warm b", time.Minute).Unlock())
	require.NoError(t, acquire(t, c, "warm c", time.Minute).Unlock())
	time.Sleep(20 * time.Millisecond) // so that claims raise the fence again

	// B's claim is on its way for a while.
	hookB := &pauseHook{before: make(chan struct{}), reached: make(chan struct{})}
	slow.AddHook(hookB)
	lockB := b.Lock(ctx, "key", time.Minute)
	<-hookB.reached
	time.Sleep(time.Millisecond)

	// A holds and releases meanwhile; its first token is drawn by script.
	lockA := acquire(t, a, "key", time.Minute)
	first := lockA.Token()
	require.NoError(t, lockA.Unlock())

	// Redis loses everything, and a claim of another key begins the fence anew. Its
	// process stops before it can see that the token is too low.
	require.NoError(t, direct.FlushAll(ctx).Err())
	hookC := &pauseHook{after: make(chan struct{}), reached: make(chan struct{})}
	stopped.AddHook(hookC)
	lockC := c.Lock(ctx, "other key", time.Minute)
	<-hookC.reached
	require.Equal(t, 1.0, direct.ZScore(ctx, "redislock:fence", "t").Val())

	close(hookB.before)
	r := soon(t, lockB)
	hookC.reached = make(chan struct{}, 100)
	close(hookC.after)
	require.NoError(t, soon(t, lockC).Err)
	require.NoError(t, r.Err)
	require.NoError(t, lockB.Unlock())
	require.NoError(t, lockC.Unlock())
	require.Greater(t, r.Token, first, "the later holder has the lower token")
}
