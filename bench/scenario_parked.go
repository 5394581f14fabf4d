package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	parkedTTL       = 5 * time.Second // of those who wait
	parkedProcesses = 4
)

// parked has n callers over several processes wait for one key, looks what that
// costs, and has them served.
func parked(n int, quick bool) scenario {
	p := parking{n: n, settle: 2 * time.Second, watch: parkedTTL, drain: 5 * time.Second}
	if quick {
		p.settle, p.watch, p.drain = time.Second, 2*time.Second, 2*time.Second
	}
	return scenario{
		name: fmt.Sprintf("parked/%d", n), rounds: 3,
		use:   use{processes: parkedProcesses, callers: n, keys: 1, ttl: parkedTTL, parked: true},
		limit: 30 * time.Second, takes: queuers, measure: p.measure,
	}
}

type parking struct {
	n                    int
	settle, watch, drain time.Duration
}

func (p parking) measure(ctx context.Context, b *bench, c contender, peers []peer) (figures, error) {
	if err := warmUp(ctx, peers, b.scenario.use); err != nil {
		return nil, err
	}
	holder, err := c.open(b.site.addrs(), time.Minute, c.best(b.scenario.use))
	if err != nil {
		return nil, err
	}
	defer holder.Close()
	release, err := holder.Acquire(ctx, "key0")
	if err != nil {
		return nil, err
	}
	// A first few, for what is there only once: subscriptions, connections.
	_, leave := crowd(ctx, peers, 16*len(peers))
	time.Sleep(200 * time.Millisecond)
	leave()
	before := inMemory()
	lot, leave := crowd(ctx, peers, p.n)
	defer leave()
	time.Sleep(p.settle)
	memory := inMemory().since(before)
	f := figures{
		"heap-B/waiter":     memory.heap / float64(p.n),
		"stack-B/waiter":    memory.stack / float64(p.n),
		"goroutines/waiter": memory.goroutines / float64(p.n),
	}

	begin, err := b.site.spent()
	if err != nil {
		return nil, err
	}
	time.Sleep(p.watch)
	end, err := b.site.spent()
	if err != nil {
		return nil, err
	}
	spent := end.since(begin)
	f["commands/s"] = spent.commands / spent.wall.Seconds()
	f["commands/manager/TTL"] = f["commands/s"] * parkedTTL.Seconds() / parkedProcesses
	f["reads/s"] = spent.reads / spent.wall.Seconds()
	f["server-cpu-%"] = 100 * spent.server.Seconds() / spent.wall.Seconds()
	f["client-cpu-%"] = 100 * spent.client.Seconds() / spent.wall.Seconds()

	lot.await() // needs a goroutine for each who waits, which have nothing to do with parking
	began := time.Now()
	if err := release(); err != nil {
		return nil, err
	}
	for time.Since(began) < p.drain && lot.served.Load() < int64(p.n) && lot.failure() == nil {
		time.Sleep(time.Millisecond)
	}
	f["drained/s"] = float64(lot.served.Load()) / time.Since(began).Seconds()
	f["drained-%"] = 100 * float64(lot.served.Load()) / float64(p.n)
	return f, lot.failure()
}

// A lot is where callers are parked.
type lot struct {
	waiters []func() (func() error, error)
	left    sync.WaitGroup
	served  atomic.Int64
	failed  atomic.Pointer[error]
}

// crowd parks n callers. leave has those leave who are still there.
func crowd(ctx context.Context, peers []peer, n int) (l *lot, leave func()) {
	ctx, cancel := context.WithCancel(ctx)
	l = new(lot)
	for i := range n {
		l.park(ctx, peers[i%len(peers)])
	}
	return l, func() {
		cancel()
		l.left.Wait()
	}
}

// park parks one more: without a goroutine, if the peer can.
func (l *lot) park(ctx context.Context, p peer) {
	if p, ok := p.(parker); ok {
		l.waiters = append(l.waiters, p.Park(ctx, "key0"))
		return
	}
	l.left.Go(func() { l.serve(ctx, func() (func() error, error) { return p.Acquire(ctx, "key0") }) })
}

// await waits for those who have been parked without a goroutine.
func (l *lot) await() {
	for _, wait := range l.waiters {
		l.left.Go(func() { l.serve(context.Background(), wait) })
	}
}

func (l *lot) serve(ctx context.Context, wait func() (func() error, error)) {
	release, err := wait()
	if err == nil {
		l.served.Add(1)
		err = release()
	}
	if err != nil && ctx.Err() == nil {
		l.failed.CompareAndSwap(nil, &err)
	}
}

func (l *lot) failure() error {
	if err := l.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// A memory is what this process has in memory.
type memory struct{ heap, stack, goroutines float64 }

func inMemory() memory {
	runtime.GC()
	runtime.GC() // what the first one only put aside (sync.Pool)
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return memory{float64(stats.HeapAlloc), float64(stats.StackInuse), float64(runtime.NumGoroutine())}
}

func (m memory) since(earlier memory) memory {
	return memory{m.heap - earlier.heap, max(0, m.stack-earlier.stack), m.goroutines - earlier.goroutines}
}
