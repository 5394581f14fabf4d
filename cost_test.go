package redislock_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// What a lock costs: round trips and standing load are tests, speed is for the
// benchmarks.

// reads counts the network reads of a server while f runs.
func reads(t testing.TB, server *redistest.Server, client *redis.Client, f func()) int64 {
	before := server.Stat(client, "total_reads_processed")
	f()
	return server.Stat(client, "total_reads_processed") - before - 1 // INFO itself
}

func TestUncontendedLockAndUnlockAreTwoRoundTrips(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(nil)
	m := newManager(t, client)
	require.NoError(t, acquire(t, m, "key", time.Minute).Unlock()) // connections, scripts
	n := reads(t, server, client, func() {
		for range 100 {
			require.NoError(t, acquire(t, m, "key", time.Minute).Unlock())
		}
	})
	require.LessOrEqual(t, n, int64(200))
}

// The releaser's one round trip makes the next in the same process the holder,
// and one pushed message the next in another.
func TestHandoverIsOneRoundTripOfTheReleaser(t *testing.T) {
	for _, managers := range []int{1, 2} {
		t.Run(fmt.Sprint(managers, " managers"), func(t *testing.T) {
			server := redistest.Start(t)
			client := server.Client(nil)
			all := managersOf(t, client, managers, redislock.WithKeyspaceEvents(redislock.KeyspaceOff))
			const n = 100
			holder := acquire(t, all[0], "key", time.Minute)
			var line []*redislock.Lock
			for i := range n {
				line = append(line, all[i%managers].Lock(ctx, "key", time.Minute))
				awaitWaiters(t, client, "key", i+1)
			}
			trips := reads(t, server, client, func() {
				require.NoError(t, holder.Unlock())
				for _, l := range line {
					serve(t, l)
				}
			})
			require.LessOrEqual(t, trips, int64(n+1+managers)) // and a ping or a look may fall into it
		})
	}
}

// park has n waiters over the managers stand in line behind a holder.
func park(t testing.TB, client *redis.Client, managers []*redislock.LockManager, ctx context.Context, n int) []*redislock.Lock {
	parked := make([]*redislock.Lock, n)
	for i := range parked {
		parked[i] = managers[i%len(managers)].Lock(ctx, "key", 30*time.Second)
	}
	queue, _ := redislock.KeysOf("key")
	for end := time.Now().Add(time.Minute); client.ZCard(ctx, queue).Val() < int64(n); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not all have joined")
		}
	}
	return parked
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// 1,000 parked waiters: at most 10 commands a second on the server in all, at
// most 2 KB of heap and no goroutine of the library's for each.
func TestParkedWaitersCostNextToNothing(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(nil)
	managers := managersOf(t, client, 4)
	holder := acquire(t, managers[0], "key", time.Minute)
	const n = 1000
	cancellable, cancel := context.WithCancel(ctx)
	park(t, client, managers, cancellable, n) // connections and whatever else is there only once
	cancel()
	awaitWaiters(t, client, "key", 0)
	cancellable, cancel = context.WithCancel(ctx)
	defer cancel()
	before := heap()
	parked := park(t, client, managers, cancellable, n)
	perWaiter := (heap() - before) / n
	eventually(t, "two that send for each manager, and one that listens", func() bool {
		return len(goroutines()) <= 3*len(managers) // and no timer, which runs for a moment
	})
	time.Sleep(500 * time.Millisecond) // the subscription to the key's events

	const span = 5 * time.Second
	commands := server.Stat(client, "total_commands_processed")
	time.Sleep(span)
	commands = server.Stat(client, "total_commands_processed") - commands - 1
	t.Logf("%d commands in %v, %d bytes of heap a waiter", commands, span, perWaiter)
	require.LessOrEqual(t, commands, int64(10*span/time.Second))
	require.LessOrEqual(t, perWaiter, uint64(2048))

	var served sync.WaitGroup
	for _, l := range parked {
		served.Go(func() {
			if r := l.Wait(); r.Err != nil {
				t.Error(r.Err)
			}
			if err := l.Unlock(); err != nil {
				t.Error(err)
			}
		})
	}
	require.NoError(t, holder.Unlock())
	finish(t, &served)
	requireClean(t, client)
}

func benchManagers(b *testing.B, client *redis.Client, n int) (all []*redislock.LockManager) {
	for range n {
		m, err := redislock.NewLockManager(client)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { m.Close() })
		all = append(all, m)
	}
	return all
}

func benchServer(b *testing.B) (*redistest.Server, *redis.Client) {
	server := redistest.Start(b)
	return server, server.Client(func(o *redis.Options) { o.PoolSize = 64 })
}

// The floor: SET NX PX and an owner-checked delete, and nothing else.
func BenchmarkRaw(b *testing.B) {
	_, client := benchServer(b)
	release := redis.NewScript(`if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`)
	for b.Loop() {
		if !client.SetNX(ctx, "key", "value", time.Minute).Val() {
			b.Fatal("not set")
		}
		if err := release.Run(ctx, client, []string{"key"}, "value").Err(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUncontended(b *testing.B) {
	for _, goroutines := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(goroutines), func(b *testing.B) {
			_, client := benchServer(b)
			m := benchManagers(b, client, 1)[0]
			b.ReportAllocs()
			spread(b, goroutines, func(g int) { once(b, m, fmt.Sprint("key", g)) })
		})
	}
}

// One key; managers x callers.
func BenchmarkContended(b *testing.B) {
	for _, shape := range [][2]int{{1, 64}, {8, 8}, {16, 1}} {
		b.Run(fmt.Sprintf("%dx%d", shape[0], shape[1]), func(b *testing.B) {
			server, client := benchServer(b)
			managers := benchManagers(b, client, shape[0])
			b.ReportAllocs()
			before := server.Stat(client, "total_reads_processed")
			spread(b, shape[0]*shape[1], func(g int) { once(b, managers[g%shape[0]], "key") })
			b.ReportMetric(float64(server.Stat(client, "total_reads_processed")-before)/float64(b.N), "reads/op")
		})
	}
}

// 1,000 parked waiters over 4 managers, drained.
func BenchmarkParkedDrain(b *testing.B) {
	_, client := benchServer(b)
	managers := benchManagers(b, client, 4)
	const n = 1000
	for b.Loop() {
		b.StopTimer()
		holder := managers[0].Lock(ctx, "key", time.Minute)
		if r := holder.Wait(); r.Err != nil {
			b.Fatal(r.Err)
		}
		parked := park(b, client, managers, ctx, n)
		time.Sleep(100 * time.Millisecond)
		var served sync.WaitGroup
		for _, l := range parked {
			served.Go(func() {
				if r := l.Wait(); r.Err != nil {
					b.Error(r.Err)
				}
				_ = l.Unlock()
			})
		}
		b.StartTimer()
		_ = holder.Unlock()
		served.Wait()
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "served/s")
}

// How long after the end of a dead holder's lease the next one has the lock, with
// so many other keys with a TTL in the database.
func BenchmarkTakeOver(b *testing.B) {
	for _, others := range []int{0, 10_000, 100_000} {
		b.Run(fmt.Sprint(others), func(b *testing.B) {
			_, client := benchServer(b)
			m := benchManagers(b, client, 1)[0]
			pipe := client.Pipeline()
			for i := range others {
				pipe.Set(ctx, fmt.Sprint("other", i), "", time.Hour)
			}
			if _, err := pipe.Exec(ctx); err != nil && others > 0 {
				b.Fatal(err)
			}
			var late []time.Duration
			for b.Loop() {
				client.Set(ctx, "key", "a holder that died", 100*time.Millisecond)
				ends := time.Now().Add(100 * time.Millisecond)
				l := m.Lock(ctx, "key", time.Minute)
				if r := l.Wait(); r.Err != nil {
					b.Fatal(r.Err)
				}
				late = append(late, time.Since(ends))
				_ = l.Unlock()
			}
			slices.Sort(late)
			b.ReportMetric(float64(late[len(late)/2].Microseconds())/1000, "ms-late-median")
			b.ReportMetric(float64(late[len(late)-1].Microseconds())/1000, "ms-late-worst")
		})
	}
}

func once(b *testing.B, m *redislock.LockManager, key string) {
	l := m.Lock(ctx, key, time.Minute)
	if r := l.Wait(); r.Err != nil {
		b.Error(r.Err)
	}
	if err := l.Unlock(); err != nil {
		b.Error(err)
	}
}

// spread has goroutines share b.N calls of f.
func spread(b *testing.B, goroutines int, f func(g int)) {
	var wg sync.WaitGroup
	b.ResetTimer()
	for g := range goroutines {
		n := b.N / goroutines
		if g < b.N%goroutines {
			n++
		}
		wg.Go(func() {
			for range n {
				f(g)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pairs/s")
}
