package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redisserver"
	"github.com/redislock/redislock/test/history"
)

// workload is what a worker does, the same for all workers of an episode but for
// name and seed.
type workload struct {
	Name     string
	Seed     uint64
	Log      string
	Reach    reach
	Via      map[string]string // where to connect to, for each address: to the worker's proxies
	Resource string
	Password string // file
	Managers int
	Callers  int // of each manager
	Keys     []string
	MinTTL   time.Duration
	MaxTTL   time.Duration
	CrashAt  int64 // kill -9 of itself at this step of the conversation with Redis; 0: never
}

// A worker is a process with several managers, each with its own connections and
// callers. It works until its standard input ends.
type worker struct {
	workload
	log    *history.Log
	healed atomic.Bool // no more crashes
	stop   atomic.Bool // no more calls
	steps  atomic.Int64
}

func runWorker(load workload) error {
	log, err := history.Create(load.Log, load.Name)
	if err != nil {
		return err
	}
	w := &worker{workload: load, log: log}
	go w.watchOwnPulse()

	var callers sync.WaitGroup
	var managers []*redislock.LockManager
	var clients []redis.UniversalClient
	for m := range load.Managers {
		rng := rand.New(rand.NewPCG(load.Seed, uint64(m)))
		own := w.connect(redis.UniversalOptions{
			Dialer:              w.dial,
			CredentialsProvider: credentials(w.Password),
			DialTimeout:         time.Second,
			// Short, so that a hole in the network costs what the run can afford;
			// the default, so that the library's own limits have to do.
			ReadTimeout: []time.Duration{300 * time.Millisecond, 3 * time.Second}[rng.IntN(2)],
			MaxRetries:  []int{-1, 3}[rng.IntN(2)],
		})
		for _, client := range own {
			client.AddHook(cuts{w.log})
		}
		mode := []redislock.KeyspaceMode{redislock.KeyspaceAuto, redislock.KeyspaceAuto, redislock.KeyspaceOff}[rng.IntN(3)]
		manager, err := manage(own, redislock.WithKeyspaceEvents(mode),
			redislock.WithLogger(slog.New(slog.NewTextHandler(os.Stderr, nil)).With("manager", m)))
		if err != nil {
			return err
		}
		managers, clients = append(managers, manager), append(clients, own...)
		for c := range load.Callers {
			resource, err := dialResource(load.Resource)
			if err != nil {
				return err
			}
			one := &caller{
				worker: w, manager: manager, at: m, resource: resource,
				name: fmt.Sprintf("%s/%d/%d", load.Name, m, c),
				rng:  rand.New(rand.NewPCG(load.Seed, uint64(1000+m*load.Callers+c))),
			}
			callers.Go(one.run)
		}
	}

	// The controller writes something when no more faults are wanted, and ends
	// standard input when it wants the worker to finish.
	var word [1]byte
	for _, err := os.Stdin.Read(word[:]); err == nil; _, err = os.Stdin.Read(word[:]) {
		w.healed.Store(true)
	}
	w.stop.Store(true)
	callers.Wait()
	for _, manager := range managers {
		if err := manager.Close(); err != nil {
			w.log.Add(history.Event{Kind: history.Fault, Name: "close: " + err.Error()})
		}
	}
	for _, client := range clients {
		client.Close()
	}
	log.Add(history.Event{Kind: history.Closed, Goroutines: goroutinesOfLibrary()})
	return nil
}

// connect makes the clients of a manager: one, or one for each node of a quorum.
func (w *worker) connect(o redis.UniversalOptions) (all []redis.UniversalClient) {
	switch w.Reach.Kind {
	case sentinel:
		o.Addrs, o.MasterName = w.Reach.Addrs, redisserver.MasterName
		return []redis.UniversalClient{redis.NewFailoverClient(o.Failover())}
	case cluster:
		o.Addrs = w.Reach.Addrs
		return []redis.UniversalClient{redis.NewClusterClient(o.Cluster())}
	}
	for _, addr := range w.Reach.Addrs {
		o.Addrs = []string{addr}
		all = append(all, redis.NewClient(o.Simple()))
	}
	return all
}

func manage(clients []redis.UniversalClient, opts ...redislock.Option) (*redislock.LockManager, error) {
	if len(clients) > 1 {
		return redislock.NewQuorumManager(clients, opts...)
	}
	return redislock.NewLockManager(clients[0], opts...)
}

// watchOwnPulse records when the process was not running: what is late then is
// not the library's fault. It ends with the process.
func (w *worker) watchOwnPulse() {
	const beat = 5 * time.Millisecond
	last := history.Now()
	for {
		time.Sleep(beat)
		now := history.Now()
		if gap := now - last; gap > int64(4*beat) {
			w.log.Add(history.Event{At: now, Kind: history.Stall, Took: gap})
		}
		last = now
	}
}

// cuts records requests that got no answer: on a busy machine some do not in time,
// without anything being done to the process.
type cuts struct{ log *history.Log }

func (c cuts) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c cuts) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { return c.note(next(ctx, cmd)) }
}

func (c cuts) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { return c.note(next(ctx, cmds)) }
}

func (c cuts) note(err error) error {
	if answer := redis.Error(nil); err != nil && !errors.As(err, &answer) {
		c.log.Add(history.Event{Kind: history.Cut, Err: err.Error()})
	}
	return err
}

// goroutinesOfLibrary counts the goroutines in whose stack the library is. Those
// that are about to end are given a moment.
func goroutinesOfLibrary() int {
	for wait := time.Millisecond; ; wait *= 2 {
		buf := make([]byte, 4<<20)
		buf = buf[:runtime.Stack(buf, true)]
		n := 0
		for _, stack := range strings.Split(string(buf), "\n\n")[1:] {
			if strings.Contains(stack, "redislock.(") {
				n++
			}
		}
		if n == 0 || wait > time.Second {
			return n
		}
		time.Sleep(wait)
	}
}

// dial connects to Redis, and counts what is sent and received over the
// connection.
func (w *worker) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, network, w.Via[addr])
	if err != nil {
		return nil, err
	}
	return countingConn{conn, w}, nil
}

// countingConn kills the process at the chosen step: before a request, after it,
// or after a reply.
type countingConn struct {
	net.Conn
	worker *worker
}

func (c countingConn) Write(data []byte) (int, error) {
	c.worker.step()
	n, err := c.Conn.Write(data)
	c.worker.step()
	return n, err
}

func (c countingConn) Read(data []byte) (int, error) {
	n, err := c.Conn.Read(data)
	if n > 0 {
		c.worker.step()
	}
	return n, err
}

func (w *worker) step() {
	if w.steps.Add(1) == w.CrashAt && !w.healed.Load() {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
