package check_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/ownvalue"
	"github.com/redislock/redislock/internal/redistest"
	"github.com/redislock/redislock/test/aof"
	"github.com/redislock/redislock/test/check"
	"github.com/redislock/redislock/test/history"
)

func init() { ownvalue.Foresee() } // each acquisition is known by its value

var ctx = context.Background()

// recorder is a small run of the library on a real server: each manager stands
// for a process.
type recorder struct {
	server *redistest.Server
	dir    string
	keys   []string

	mu      sync.Mutex
	events  []history.Event
	highest map[string]int64 // the guarded resource
	ops     int
}

func record(t *testing.T, keys ...string) *recorder {
	dir := t.TempDir()
	return &recorder{
		server: redistest.Start(t, append([]string{"--dir", dir}, aof.Settings...)...),
		dir:    filepath.Join(dir, "appendonlydir"), keys: keys, highest: make(map[string]int64),
	}
}

func (r *recorder) add(e history.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.At = history.Now()
	r.events = append(r.events, e)
}

func (r *recorder) failure(e history.Event, err error) {
	if err != nil {
		e.Err, e.Is = err.Error(), history.Sentinels(err)
	}
	r.add(e)
}

// once makes one acquisition and uses it in one way or another.
func (r *recorder) once(m *redislock.LockManager, process string) {
	r.mu.Lock()
	r.ops++
	name := fmt.Sprintf("%s-%04d", process, r.ops)
	r.mu.Unlock()
	ttl := time.Duration(30+rand.IntN(200)) * time.Millisecond
	key, renew := r.keys[rand.IntN(len(r.keys))], rand.IntN(4) == 0
	of := func(kind history.Kind) history.Event {
		return history.Event{Process: process, Kind: kind, Op: name, Key: key}
	}
	var opts []redislock.LockOption
	if renew {
		opts = append(opts, redislock.WithAutoRenew(3*ttl))
	}
	ctx, cancel := context.WithCancel(ownvalue.With(ctx, name))
	defer cancel()
	if rand.IntN(8) == 0 {
		timer := time.AfterFunc(time.Duration(rand.IntN(100))*time.Millisecond, func() {
			r.add(of(history.Cancel))
			cancel()
		})
		defer timer.Stop()
	}
	call := of(history.Call)
	call.TTL, call.Method, call.Renew = int64(ttl), "lock", renew
	r.add(call)
	lock := m.Lock(ctx, key, ttl, opts...)
	result := lock.Wait()
	if !result.OK() {
		r.failure(of(history.Failed), result.Err)
		lock.Unlock()
		return
	}
	granted := of(history.Granted)
	granted.Token, granted.ValidUntil = result.Token, history.Monotonic(result.ValidUntil)
	r.add(granted)
	unlocking, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-lock.Done():
			done := of(history.Done)
			done.ValidUntil = history.Monotonic(lock.ValidUntil())
			r.failure(done, lock.Err())
		case <-unlocking:
		}
	}()
	switch rand.IntN(5) {
	case 0:
		r.write(of, result.Token)
	case 1:
		extend := of(history.Extend)
		extend.TTL = int64(ttl) * 2
		r.add(extend)
		err := lock.Extend(ctx, ttl*2)
		extended := of(history.Extended)
		extended.ValidUntil = history.Monotonic(lock.ValidUntil())
		r.failure(extended, err)
		r.write(of, result.Token)
	case 2:
		if rand.IntN(10) == 0 {
			time.Sleep(ttl + time.Duration(rand.IntN(50))*time.Millisecond) // too long, at times
		}
		r.write(of, result.Token)
	}
	r.add(of(history.Unlock))
	close(unlocking)
	<-watched
	r.failure(of(history.Unlocked), lock.Unlock())
}

func (r *recorder) write(of func(history.Kind) history.Event, token int64) {
	begun := of(history.Write)
	begun.Token = token
	r.add(begun)
	r.mu.Lock()
	answer := of(history.Refused)
	answer.Process, answer.Token, answer.Highest, answer.At = "resource", token, r.highest[answer.Key], history.Now()
	if token >= answer.Highest {
		answer.Kind, r.highest[answer.Key] = history.Accepted, token
	}
	r.events = append(r.events, answer)
	r.mu.Unlock()
	written := of(history.Written)
	written.Token, written.Accepted = token, answer.Kind == history.Accepted
	r.add(written)
}

// foreign is another program that locks the same keys.
func (r *recorder) foreign(client *redis.Client, stop <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-time.After(20 * time.Millisecond):
		}
		value := fmt.Sprintf("foreign:%d", n)
		if client.Do(ctx, "SET", r.keys[0], value, "NX", "PX", 50).Err() == nil {
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
			client.Eval(ctx, "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0",
				[]string{r.keys[0]}, value)
		}
	}
}

// watchOwnPulse records when the test was not running, and so none of the
// processes that its managers stand for: what is late then is not the library's
// fault.
func (r *recorder) watchOwnPulse(stop <-chan struct{}) {
	const beat = 5 * time.Millisecond
	last := history.Now()
	for {
		select {
		case <-stop:
			return
		case <-time.After(beat):
		}
		now := history.Now()
		if gap := now - last; gap > int64(4*beat) {
			for i := range managers {
				r.add(history.Event{Process: process(i), Kind: history.Stall, Took: gap})
			}
		}
		last = now
	}
}

const managers = 4

func process(i int) string { return fmt.Sprintf("p%d", i) }

// run has 4 managers with 7 callers each make calls for a while, and returns all
// that is known then.
func (r *recorder) run(t *testing.T, calls int, fault func(client *redis.Client)) check.Input {
	t.Helper()
	stop := make(chan struct{})
	var beside, workers sync.WaitGroup
	client := r.server.Client(nil)
	beside.Go(func() { r.foreign(client, stop) })
	beside.Go(func() { r.watchOwnPulse(stop) })
	var opened []*redislock.LockManager
	for i := range managers {
		m, err := redislock.NewLockManager(r.server.Client(nil))
		require.NoError(t, err)
		opened = append(opened, m)
		for range 7 {
			workers.Go(func() {
				for range calls {
					r.once(m, process(i))
				}
			})
		}
	}
	if fault != nil {
		beside.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(50+rand.IntN(200)) * time.Millisecond):
					r.add(history.Event{Kind: history.Fault, Name: "fault"})
					fault(client)
				}
			}
		})
	}
	workers.Wait()
	close(stop)
	beside.Wait()
	for i, m := range opened {
		require.NoError(t, m.Close())
		r.add(history.Event{Process: process(i), Kind: history.Closed})
	}
	entries, err := aof.Read(r.dir)
	require.NoError(t, err)
	in := check.Input{
		Events: r.events, Entries: entries, WallMinusMono: history.WallMinusMono(),
		KeepDir: t.TempDir(), Slack: 100 * time.Millisecond,
	}
	return in
}

func requireNothingWrong(t *testing.T, in check.Input) check.Report {
	t.Helper()
	began := time.Now()
	report := check.Check(in)
	t.Logf("checked in %v\n%v", time.Since(began).Round(time.Millisecond), report)
	for _, v := range report.Violations[:min(3, len(report.Violations))] {
		t.Error(check.Story(in, v))
	}
	require.Empty(t, report.Unknown)
	return report
}

func TestARealRun(t *testing.T) {
	r := record(t, "k", "{l}")
	r.add(history.Event{Kind: history.Healed}) // nothing is done to anybody
	report := requireNothingWrong(t, r.run(t, 50, nil))
	for _, guarantee := range []string{"G1", "G2", "G3", "G5", "G6", "G7", "G8", "G9", "G10"} {
		require.Positive(t, report.Facts(guarantee), guarantee)
	}
}

func TestARealRunWithSubscriptionsCut(t *testing.T) {
	r := record(t, "k")
	requireNothingWrong(t, r.run(t, 15, func(client *redis.Client) {
		client.Do(ctx, "CLIENT", "KILL", "TYPE", "pubsub")
	}))
}

// The server is killed and comes back with all it had.
func TestARealRunWithRestarts(t *testing.T) {
	r := record(t, "k")
	requireNothingWrong(t, r.run(t, 15, func(*redis.Client) {
		r.server.Kill()
		time.Sleep(30 * time.Millisecond)
		r.server.Run()
		time.Sleep(300 * time.Millisecond)
	}))
}

func TestARealRunWithFlushes(t *testing.T) {
	r := record(t, "k")
	in := r.run(t, 15, func(client *redis.Client) { client.FlushAll(ctx) })
	in.SecondClass.Flush = true
	report := requireNothingWrong(t, in)
	require.Positive(t, report.Grants)
}
