package redislock_test

import (
	"context"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
)

// century is the longest TTL.
const century = 100 * 365 * 24 * time.Hour

var oddDurations = []time.Duration{
	math.MinInt64, -century, -time.Second, -1, 0, 1, time.Microsecond, time.Millisecond - 1, time.Millisecond,
	time.Millisecond + 1, 2*time.Millisecond - 1, 99 * time.Millisecond, time.Second, time.Hour, century - 1, century,
	century + 1, century + time.Millisecond, 2 * century, math.MaxInt64 - 1, math.MaxInt64,
}

// Every duration is refused by name, with nothing sent, or gives a lease whose
// ValidUntil is right.
func FuzzDurations(f *testing.F) {
	for i, d := range oddDurations {
		f.Add(int64(d), int64(time.Second), int64(time.Minute))
		f.Add(int64(time.Second), int64(d), int64(time.Minute))
		f.Add(int64(time.Second), int64(time.Second), int64(d))
		f.Add(int64(d), int64(oddDurations[len(oddDurations)-1-i]), int64(d))
		f.Add(int64(d), int64(d), int64(math.MaxInt64))
	}
	f.Fuzz(func(t *testing.T, ttl, extension, maxHold int64) {
		inBubble(t, func(t *testing.T, b *bubble) {
			c := &counted{bubble: b}
			b.client.AddHook(c)
			checkLease(t, c, time.Duration(ttl), time.Duration(extension))
			checkTryAndDo(t, c, time.Duration(ttl))
			checkRenewal(t, c, time.Duration(ttl), time.Duration(maxHold))
		})
	})
}

// counted is a bubble whose client counts what it sends. It is a redis.Hook.
type counted struct {
	*bubble
	sent atomic.Int64
}

func (c *counted) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *counted) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.sent.Add(1)
		return next(ctx, cmd)
	}
}

func (c *counted) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.sent.Add(int64(len(cmds)))
		return next(ctx, cmds)
	}
}

func allowed(ttl time.Duration) bool { return ttl >= time.Millisecond && ttl <= century }

// requireRefused checks that the call fails on account of what is named, and
// sends nothing.
func requireRefused(t *testing.T, b *counted, name string, call func() error) {
	t.Helper()
	synctest.Wait()
	sent := b.sent.Load()
	err := call()
	require.ErrorIs(t, err, redislock.ErrInvalidArgument)
	require.ErrorContains(t, err, name)
	synctest.Wait()
	require.Equal(t, sent, b.sent.Load(), "something was sent")
}

// lease returns what is granted for a TTL, and what counts as valid of it.
func lease(ttl time.Duration) (granted, valid time.Duration) {
	granted = ttl.Truncate(time.Millisecond)
	return granted, granted - granted/100
}

func checkLease(t *testing.T, b *counted, ttl, extension time.Duration) {
	if !allowed(ttl) {
		requireRefused(t, b, "ttl is "+ttl.String(), func() error { return b.manager.Lock(ctx, "key", ttl).Wait().Err })
		return
	}
	start := time.Now()
	l := b.manager.Lock(ctx, "key", ttl)
	r := soon(t, l)
	require.NoError(t, r.Err)
	granted, valid := lease(ttl)
	require.Equal(t, granted, b.server.TTL("key"))
	require.Equal(t, start.Add(valid), l.ValidUntil())
	require.Equal(t, start.Add(valid), r.ValidUntil)
	require.NoError(t, l.Err())

	if !allowed(extension) {
		requireRefused(t, b, "ttl is "+extension.String(), func() error { return l.Extend(ctx, extension) })
	} else {
		require.NoError(t, l.Extend(ctx, extension))
		extended, longer := lease(extension)
		require.Equal(t, max(granted, extended), b.server.TTL("key"))
		require.Equal(t, start.Add(max(valid, longer)), l.ValidUntil())
	}
	require.NoError(t, l.Unlock())
}

func checkTryAndDo(t *testing.T, b *counted, ttl time.Duration) {
	try := func() error {
		l, err := b.manager.TryLock(ctx, "key", ttl)
		if err != nil {
			return err
		}
		return l.Unlock()
	}
	do := func() error {
		return b.manager.Do(ctx, "key", ttl, func(ctx context.Context) error { return ctx.Err() })
	}
	for _, call := range []func() error{try, do} {
		if allowed(ttl) {
			require.NoError(t, call())
		} else {
			requireRefused(t, b, "ttl is "+ttl.String(), call)
		}
	}
}

func checkRenewal(t *testing.T, b *counted, ttl, maxHold time.Duration) {
	if !allowed(ttl) {
		ttl = time.Second
	}
	start := time.Now()
	lock := func() *redislock.Lock {
		return b.manager.Lock(ctx, "key", ttl, redislock.WithAutoRenew(maxHold))
	}
	if maxHold <= 0 || maxHold < ttl {
		requireRefused(t, b, "max hold "+map[bool]string{true: "is "}[maxHold <= 0]+maxHold.String(),
			func() error { return lock().Wait().Err })
		return
	}
	l := lock()
	require.NoError(t, soon(t, l).Err)
	granted, valid := lease(ttl)
	for range 7 {
		time.Sleep(granted / 4)
		synctest.Wait()
		held := time.Since(start)
		if held < min(valid, maxHold-maxHold/100) {
			require.NoError(t, l.Err(), "lost after %v", held)
		}
		if l.Err() != nil {
			require.ErrorIs(t, l.Err(), redislock.ErrLost)
			require.GreaterOrEqual(t, held, valid-lossMargin, "lost before its time")
			break
		}
		// Never later than the key's end, nor than the longest hold.
		rest := time.Until(l.ValidUntil())
		require.Positive(t, rest)
		require.LessOrEqual(t, rest, b.server.TTL("key"))
		require.LessOrEqual(t, rest, maxHold-held)
	}
	if l.Err() == nil {
		require.NoError(t, l.Unlock())
	} else {
		_ = l.Unlock()
	}
	synctest.Wait()
	require.False(t, b.server.Exists("key"))
}

// lossMargin is how long before ValidUntil a loss may be signalled.
const lossMargin = 5 * time.Millisecond
