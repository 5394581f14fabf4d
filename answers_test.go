package redislock_test

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
)

// A fate is what befalls one request.
type fate struct {
	before, after time.Duration // on the way to Redis, and back
	lost          bool          // the answer
}

// A wire is a hook of a client: the next request of the library meets its fate.
type wire struct {
	next   atomic.Pointer[fate]
	broken atomic.Bool // for releases
}

func newWire(b *bubble) *wire {
	w := new(wire)
	b.client.AddHook(pipelineHook(w.pass))
	return w
}

func (w *wire) pass(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
	if isGreeting(cmds) {
		return next(ctx, cmds)
	}
	if w.broken.Load() && slices.ContainsFunc(cmds, isRelease) {
		_ = cmds[0].Args()
		time.Sleep(3 * time.Second) // the client's time-out
		for _, cmd := range cmds {
			cmd.SetErr(io.ErrUnexpectedEOF)
		}
		return io.ErrUnexpectedEOF
	}
	f := w.next.Swap(nil)
	if f == nil {
		return next(ctx, cmds)
	}
	_ = cmds[0].Args() // as the client does once it has a connection
	time.Sleep(f.before)
	err := next(ctx, cmds)
	time.Sleep(f.after)
	if f.lost {
		for _, cmd := range cmds {
			cmd.(interface{ SetVal(any) }).SetVal(nil)
			cmd.SetErr(io.ErrUnexpectedEOF)
		}
		return io.ErrUnexpectedEOF
	}
	return err
}

func isRelease(cmd redis.Cmder) bool {
	return isScript(cmd, "free.lua") || isScript(cmd, "release.lua")
}

// isGreeting tells what the client sends by itself over a new connection.
func isGreeting(cmds []redis.Cmder) bool {
	name := cmds[0].Name()
	return name == "hello" || name == "client"
}

// However slow the answer is, a lease counts from before the request was sent.
func TestValidityCountsFromTheRequest(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := newWire(b)
		require.NoError(t, acquire(t, b.manager, "warm", time.Minute).Unlock())
		const ttl = 10 * time.Second
		slowly := func() time.Time {
			w.next.Store(&fate{after: 200 * time.Millisecond})
			return time.Now()
		}

		sent := slowly()
		l := acquire(t, b.manager, "key", ttl)
		require.Equal(t, sent.Add(ttl-ttl/100), l.ValidUntil(), "plain commands")

		sent = slowly()
		require.NoError(t, l.Extend(ctx, 2*ttl))
		require.Equal(t, sent.Add(2*(ttl-ttl/100)), l.ValidUntil(), "an extension")

		next := b.manager.Lock(ctx, "key", ttl)
		time.Sleep(5 * time.Second) // no look is due, which would tell as well, nor is CONFIG asked for again
		sent = slowly()
		require.NoError(t, l.Unlock())
		require.NoError(t, next.Wait().Err)
		require.Equal(t, sent.Add(ttl-ttl/100), next.ValidUntil(), "a handover")
		_, err := b.manager.TryLock(ctx, "key", ttl)
		require.ErrorIs(t, err, redislock.ErrNotAcquired)
		require.NoError(t, next.Unlock())

		sent = slowly() // not by plain commands, as the key was found taken just now
		l = acquire(t, b.manager, "key", ttl)
		require.Equal(t, sent.Add(ttl-ttl/100), l.ValidUntil(), "the script")
		require.NoError(t, l.Unlock())
	})
}

// Two extensions share a pipeline whose connection fails between their answers. The
// first one's counts: it is told at once, although Redis is out of reach since.
func TestAnswerCountsThatCameBeforeTheConnectionFailed(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		m := b.manager
		held := []*redislock.Lock{acquire(t, m, "first", time.Minute), acquire(t, m, "second", time.Minute)}
		for _, l := range held {
			require.NoError(t, l.Extend(ctx, time.Minute)) // Redis knows the script
		}
		way := map[any]chan struct{}{"one": make(chan struct{}), "another": make(chan struct{})}
		b.client.AddHook(pipelineHook(func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
			extensions := 0
			for _, cmd := range cmds {
				switch args := cmd.Args(); {
				case args[0] == "set" && way[args[1]] != nil:
					<-way[args[1]]
				case args[0] == "evalsha" && (args[3] == "first" || args[3] == "second"):
					extensions++
				}
			}
			if extensions == 2 {
				b.linesLeft.CompareAndSwap(0, 1) // each answer is a line
			}
			return next(ctx, cmds)
		}))
		heal := sync.OnceFunc(func() {
			b.linesLeft.Store(-1)
			b.frozen.Store(false)
			close(way["another"])
		})
		defer heal()

		var locks []*redislock.Lock
		for _, key := range []string{"one", "another"} { // as many requests as may be under way
			locks = append(locks, m.Lock(ctx, key, time.Minute))
			synctest.Wait()
		}
		var answered []chan error
		for _, l := range held {
			answer := make(chan error, 1)
			answered = append(answered, answer)
			go func() { answer <- l.Extend(ctx, time.Hour) }()
			synctest.Wait()
		}
		start := time.Now()
		close(way["one"])
		require.NoError(t, <-answered[0])
		require.Equal(t, start, time.Now(), "it has waited for what was under way")
		require.True(t, b.frozen.Load(), "the pipeline was not cut")
		require.Greater(t, time.Until(held[0].ValidUntil()), time.Minute)
		time.Sleep(5 * time.Second)
		require.Empty(t, answered[1])

		heal()
		require.NoError(t, <-answered[1])
		for _, l := range append(held, locks...) {
			serve(t, l)
		}
		synctest.Wait()
		require.Equal(t, []string{redislock.FenceKey}, b.server.Keys())
	})
}

// Cancelled while a request is under way whose answer is lost then: what it did
// in Redis is undone.
func TestCancelledBeforeItsAnswerIsLost(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := newWire(b)
		require.NoError(t, acquire(t, b.manager, "warm", time.Minute).Unlock())
		cancelled := func(key string) {
			cancellable, cancel := context.WithCancel(ctx)
			w.next.Store(&fate{after: 200 * time.Millisecond, lost: true})
			l := b.manager.Lock(cancellable, key, time.Hour)
			time.Sleep(100 * time.Millisecond)
			cancel()
			require.ErrorIs(t, l.Wait().Err, context.Canceled)
			time.Sleep(time.Second)
		}
		cancelled("free")
		require.False(t, b.server.Exists("free"), "the key is left behind")

		holder := acquire(t, b.manager, "taken", time.Hour)
		neighbour := b.manager.Lock(ctx, "taken", time.Hour) // so that the next joins straight away
		synctest.Wait()
		cancelled("taken")
		require.Equal(t, 1, waiters(t, b.client, "taken"), "the place in the line is left behind")
		require.NoError(t, holder.Unlock())
		require.NoError(t, neighbour.Wait().Err)
		require.NoError(t, neighbour.Unlock())
	})
}

// A call whose request is slow is not overtaken by the next call on another
// connection.
func TestCallsDoNotOvertakeASlowOne(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := newWire(b)
		holder := acquire(t, b.manager, "key", time.Hour)
		neighbour := b.manager.Lock(ctx, "key", time.Hour) // so that the next join straight away
		synctest.Wait()
		w.next.Store(&fate{before: 200 * time.Millisecond})
		first := b.manager.Lock(ctx, "key", time.Hour)
		synctest.Wait()
		second := b.manager.Lock(ctx, "key", time.Hour)
		time.Sleep(time.Second)
		require.NoError(t, holder.Unlock())
		require.NoError(t, neighbour.Wait().Err)
		require.NoError(t, neighbour.Unlock())
		synctest.Wait()
		require.NotZero(t, first.Token())
		require.Zero(t, second.Token(), "overtook the call before it")
		require.NoError(t, first.Unlock())
		require.NoError(t, second.Wait().Err)
		require.NoError(t, second.Unlock())
	})
}

// Close waits for what is under way, and for what that calls for.
func TestCloseWaitsForASlowAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := newWire(b)
		require.NoError(t, acquire(t, b.manager, "warm", time.Minute).Unlock())
		w.next.Store(&fate{after: 500 * time.Millisecond})
		l := b.manager.Lock(ctx, "key", time.Hour)
		synctest.Wait()
		require.NoError(t, b.manager.Close())
		require.ErrorIs(t, l.Wait().Err, redislock.ErrClosed)
		require.False(t, b.server.Exists("key"), "the key is left behind")
		synctest.Wait() // for those that are on their last instruction
		require.Empty(t, goroutines())
		require.True(t, b.manager.Idle())
	})
}

// Nor does an Unlock amid Close take away from it what it has to wait for.
func TestCloseWaitsForWaitersThatUnlock(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := newWire(b)
		held := acquire(t, b.manager, "held", time.Minute)
		require.NoError(t, b.client.Set(ctx, "key", "foreign", time.Hour).Err())
		waiting := b.manager.Lock(ctx, "key", time.Hour)
		synctest.Wait()
		require.Equal(t, 1, waiters(t, b.client, "key"))

		w.next.Store(&fate{after: 500 * time.Millisecond})
		b.manager.Lock(ctx, "other", time.Hour) // keeps Close busy
		synctest.Wait()
		w.next.Store(&fate{before: 800 * time.Millisecond}) // longer than that
		go func() {
			waiting.Wait()
			_ = waiting.Unlock()
			_ = held.Unlock()
		}()
		require.NoError(t, b.manager.Close())
		require.Zero(t, waiters(t, b.client, "key"), "it has not left the line")
	})
}
