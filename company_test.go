package redislock_test

import (
	"context"
	"fmt"
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

// What requests that travel in one pipeline do together.

// together has all that f's goroutines ask of the manager go out in one pipeline, and
// returns its commands. As many requests as may be under way are kept from being sent
// meanwhile.
func together(t *testing.T, b *bubble, f func()) []redis.Cmder {
	gate := make(chan struct{})
	var sent atomic.Pointer[[]redis.Cmder]
	b.client.AddHook(pipelineHook(func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
		shut := slices.ContainsFunc(cmds, func(cmd redis.Cmder) bool {
			return cmd.Name() == "set" && cmd.Args()[1].(string)[:4] == "gate"
		})
		if shut {
			<-gate
		} else if !isGreeting(cmds) {
			sent.CompareAndSwap(nil, &cmds)
		}
		return next(ctx, cmds)
	}))
	var locks []*redislock.Lock
	for i := range 2 {
		locks = append(locks, b.manager.Lock(ctx, fmt.Sprint("gate", i), time.Minute))
		synctest.Wait()
	}
	f()
	synctest.Wait()
	require.Nil(t, sent.Load())
	close(gate)
	synctest.Wait()
	require.NotNil(t, sent.Load())
	for _, l := range locks {
		require.NoError(t, l.Wait().Err)
		require.NoError(t, l.Unlock())
	}
	return *sent.Load()
}

// One call releases the locks that nobody waits for, and leaves alone what it must.
func TestReleasesInCompany(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		other := b.another(t)
		var locks []*redislock.Lock
		for i := range 5 {
			locks = append(locks, acquire(t, b.manager, fmt.Sprint("key", i), time.Minute))
		}
		require.NoError(t, b.server.Set("key1", "foreign"))
		next := other.manager.Lock(ctx, "key2", time.Minute)
		time.Sleep(5 * time.Second) // looks no more before the lease ends
		require.Equal(t, 1, waiters(t, b.client, "key2"))
		b.server.Del("key3")
		_, err := b.server.Push("key3", "what is no lock")
		require.NoError(t, err)

		released := time.Now()
		errs := make([]error, len(locks))
		var wg sync.WaitGroup
		cmds := together(t, b, func() {
			for i, l := range locks {
				wg.Go(func() { errs[i] = l.Unlock() })
			}
		})
		wg.Wait()
		require.Len(t, cmds, 1)
		require.Equal(t, 2*len(locks), cmds[0].Args()[2], "they were to be released by one call")

		for i, err := range errs {
			if i == 1 || i == 3 {
				require.ErrorIs(t, err, redislock.ErrLost)
			} else {
				require.NoError(t, err)
			}
		}
		require.NoError(t, next.Wait().Err)
		require.Less(t, time.Since(released), time.Second, "the lock was not handed over")
		require.Equal(t, next.Value(), must(b.server.Get("key2")))
		require.Equal(t, "foreign", must(b.server.Get("key1")))
		require.True(t, b.server.Exists("key3"))
		require.False(t, b.server.Exists("key0"))
		require.False(t, b.server.Exists("key4"))
		require.NoError(t, next.Unlock())
	})
}

// Where the call is not answered, or Redis has forgotten the script, each of its locks
// is released by another.
func TestReleasesInCompanyAreTriedAgain(t *testing.T) {
	for name, spoil := range map[string]func(b *bubble, w *wire){
		"answer lost": func(_ *bubble, w *wire) { w.next.Store(&fate{lost: true}) },
		"NOSCRIPT":    func(b *bubble, _ *wire) { must(b.client.ScriptFlush(ctx).Result()) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				w := newWire(b)
				var locks []*redislock.Lock
				for i := range 5 {
					locks = append(locks, acquire(t, b.manager, fmt.Sprint("key", i), time.Minute))
				}
				require.NoError(t, locks[0].Unlock()) // Redis knows the script
				var wg sync.WaitGroup
				cmds := together(t, b, func() {
					spoil(b, w)
					for _, l := range locks[1:] {
						wg.Go(func() {
							if err := l.Unlock(); err != nil {
								t.Error(err)
							}
						})
					}
				})
				wg.Wait()
				require.Error(t, cmds[0].Err())
				require.Equal(t, []string{redislock.FenceKey}, b.server.Keys())
			})
		})
	}
}

// Claims draw their tokens together, each after it has the key, and each another.
func TestClaimsInCompanyDrawTokensOfTheirOwn(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		const n = 70
		require.NoError(t, acquire(t, b.manager, "warm", time.Minute).Unlock())
		foreign := b.another(t)
		taken := acquire(t, foreign.manager, "key7", time.Minute)
		var locks []*redislock.Lock
		cmds := together(t, b, func() {
			for i := range n {
				locks = append(locks, b.manager.Lock(ctx, fmt.Sprint("key", i), time.Minute))
			}
		})
		var names []string
		for _, cmd := range cmds {
			if name := cmd.Name(); name == "set" || name == "incrby" { // not what was sent again of the gates
				names = append(names, name)
			}
		}
		want := slices.Concat(slices.Repeat([]string{"set"}, 32), []string{"incrby"},
			slices.Repeat([]string{"set"}, 32), []string{"incrby"}, slices.Repeat([]string{"set"}, 6), []string{"incrby"})
		require.Equal(t, want, names[len(names)-len(want):])

		require.NoError(t, taken.Unlock())
		tokens := make(map[int64]bool)
		highest := taken.Token()
		for i, l := range locks {
			require.NoError(t, l.Wait().Err)
			if i != 7 {
				require.Greater(t, l.Token(), highest, "they were sent in this order")
				highest = l.Token()
			}
			tokens[l.Token()] = true
			require.NoError(t, l.Unlock())
		}
		require.Len(t, tokens, n)
		require.Greater(t, acquire(t, b.manager, "key0", time.Minute).Token(), highest)
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
