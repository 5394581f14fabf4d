package check_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock/test/aof"
	"github.com/redislock/redislock/test/check"
	"github.com/redislock/redislock/test/history"
)

// The lock that everybody writes first: SET NX PX, and DEL without a look at who
// holds it. Its holders are sometimes slower than their lease. On a real server,
// the checkers have to see what comes of that.
func TestANaiveLockIsFoundOut(t *testing.T) {
	r := record(t, "k")
	const ttl = 20 * time.Millisecond
	var workers sync.WaitGroup
	for p := range 4 {
		client := r.server.Client(nil)
		workers.Go(func() {
			for i := range 25 {
				name, process := fmt.Sprintf("p%d-%d", p, i), fmt.Sprintf("p%d", p)
				of := func(kind history.Kind) history.Event {
					return history.Event{Process: process, Kind: kind, Op: name, Key: "k"}
				}
				call := of(history.Call)
				call.TTL, call.Method = int64(ttl), "lock"
				r.add(call)
				sent := history.Now()
				for client.Do(ctx, "SET", "k", name, "NX", "PX", ttl.Milliseconds()).Err() != nil {
					time.Sleep(time.Millisecond)
					sent = history.Now()
				}
				granted := of(history.Granted)
				granted.Token = int64(client.Incr(ctx, "redislock:fence").Val())
				granted.ValidUntil = sent + int64(ttl) // but it does not keep to it
				r.add(granted)
				if i%5 == 0 {
					time.Sleep(ttl + 5*time.Millisecond)
				}
				r.write(of, granted.Token)
				r.add(of(history.Unlock))
				r.failure(of(history.Unlocked), client.Del(ctx, "k").Err())
			}
		})
	}
	workers.Wait()
	entries, err := aof.Read(r.dir)
	require.NoError(t, err)
	in := check.Input{Events: r.events, Entries: entries, WallMinusMono: history.WallMinusMono()}
	report := check.Check(in)
	found := make(map[string]string)
	for _, v := range report.Violations {
		name := v.Guarantee + " " + v.Checker
		if found[name] == "" {
			found[name] = check.Story(in, v)
		}
	}
	for name, story := range found {
		t.Logf("%s\n%s", name, story)
	}
	require.Contains(t, found, "G8 owners", "a lock was deleted that had become another's")
	require.Contains(t, found, "G8 unlock answers", "Unlock said yes after the lease")
	require.Contains(t, found, "G1 belief windows", "two held it")
}
