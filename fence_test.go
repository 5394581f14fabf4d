package redislock_test

import (
	"context"
	"slices"
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

// A claim may find that another claim has begun a new fence after the old one was
// lost, and must not draw a token lower than those of the old one. The model of
// the protocol found it (docs/model.md).
func TestTokensRiseOverAFlushAmidClaims(t *testing.T) {
	server := redistest.Start(t)
	direct := server.Client(nil)
	slow, stopped := server.Client(nil), server.Client(nil)
	a, b, c := newManager(t, direct), newManager(t, slow), newManager(t, stopped)
	require.NoError(t, acquire(t, b, "warm b", time.Minute).Unlock())
	require.NoError(t, acquire(t, c, "warm c", time.Minute).Unlock())
	time.Sleep(20 * time.Millisecond) // so that claims raise the fence again

	// B's claim is on its way for a while.
	hookB := &pauseHook{before: make(chan struct{}), reached: make(chan struct{}, 100)}
	slow.AddHook(pipelineHook(hookB.pass))
	lockB := b.Lock(ctx, "key", time.Minute)
	<-hookB.reached
	time.Sleep(time.Millisecond)

	// A holds and releases meanwhile; its first token is drawn by script.
	lockA := acquire(t, a, "key", time.Minute)
	first := lockA.Token()
	require.NoError(t, lockA.Unlock())

	// Redis loses everything. Another key is claimed, by a process that stops before
	// it can see that there was no fence.
	require.NoError(t, direct.FlushAll(ctx).Err())
	hookC := &pauseHook{after: make(chan struct{}), reached: make(chan struct{}, 100)}
	stopped.AddHook(pipelineHook(hookC.pass))
	lockC := c.Lock(ctx, "other key", time.Minute)
	<-hookC.reached
	close(hookB.before)
	r := lockB.Wait()
	close(hookC.after)
	require.NoError(t, soon(t, lockC).Err)
	require.NoError(t, r.Err)
	require.NoError(t, lockB.Unlock())
	require.NoError(t, lockC.Unlock())
	require.Greater(t, r.Token, first, "the later holder has the lower token")
}
