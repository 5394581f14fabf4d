package check_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/redislock/redislock/test/aof"
	"github.com/redislock/redislock/test/check"
	"github.com/redislock/redislock/test/history"
)

// random lives through a run in which all is well: callers come, are cancelled,
// extend, write, unlock or forget to, and processes are killed.
func random(t *rapid.T) *world {
	w := newWorld()
	keys := []string{"k", "l"}
	n := 0
	pick := func(name string, which func(a *acquisition) bool) *acquisition {
		var names []string
		for name, a := range w.ops {
			if which(a) && !w.dead[a.process] && !a.ended {
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			return nil
		}
		slices.Sort(names)
		return w.ops[rapid.SampledFrom(names).Draw(t, name)]
	}
	holder := func(a *acquisition) bool { return a.granted }
	// A holder whose lease has ended in Redis, too, is told at the same time.
	settle := func() { w.pass(1) }
	for range rapid.IntRange(10, 60).Draw(t, "steps") {
		settle()
		switch rapid.SampledFrom([]string{"lock", "lock", "lock", "unlock", "unlock", "unlock", "write", "extend", "renew", "cancel", "pass", "kill"}).Draw(t, "what") {
		case "lock":
			process := fmt.Sprintf("p%d", rapid.IntRange(1, 4).Draw(t, "process"))
			if w.dead[process] {
				continue
			}
			n++
			w.lock(fmt.Sprintf("op%02d", n), rapid.SampledFrom(keys).Draw(t, "key"), process,
				int64(rapid.IntRange(100, 900).Draw(t, "ttl")), rapid.Bool().Draw(t, "renew"))
		case "unlock":
			if a := pick("unlocks", holder); a != nil {
				w.unlock(a)
			}
		case "write":
			if a := pick("writes", holder); a != nil {
				w.write(a, event(w.events, history.Granted, a.name).Token)
			}
		case "extend":
			if a := pick("extends", holder); a != nil {
				w.extend(a, a.ttl+int64(rapid.IntRange(0, 500).Draw(t, "by")))
			}
		case "renew":
			if a := pick("renews", func(a *acquisition) bool { return a.granted && a.renew }); a != nil {
				sent := w.now
				w.prolong(a, a.ttl)
				a.validUntil = max(a.validUntil, sent+a.ttl*990_000)
				w.event(history.Valid, a, func(e *history.Event) { e.ValidUntil = a.validUntil })
			}
		case "cancel":
			if a := pick("cancels", func(a *acquisition) bool { return !a.granted }); a != nil {
				w.cancel(a)
			}
		case "pass":
			w.pass(int64(rapid.IntRange(1, 1000).Draw(t, "ms")))
			for _, key := range keys { // as the timers do
				if k := w.key(key); len(k.queue) > 0 {
					if a := w.ops[k.queue[0]]; !w.dead[a.process] {
						w.look(a)
					}
				}
			}
		case "kill":
			if process := fmt.Sprintf("p%d", rapid.IntRange(1, 4).Draw(t, "process")); !w.dead[process] && rapid.IntRange(0, 3).Draw(t, "chance") == 0 {
				w.kill(process)
			}
		}
	}
	w.pass(5000)
	for _, key := range keys {
		for {
			k := w.key(key)
			i := slices.IndexFunc(k.queue, func(name string) bool { return !w.dead[w.ops[name].process] })
			if i < 0 {
				break
			}
			w.look(w.ops[k.queue[i]])
			w.pass(2000)
		}
	}
	for p := range 4 {
		if process := fmt.Sprintf("p%d", p+1); !w.dead[process] {
			w.of(process, history.Closed, nil)
		}
	}
	return w
}

func TestRandomHistoriesPass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := random(t).input()
		report := check.Check(in)
		if len(report.Violations) > 0 {
			t.Fatal(check.Story(in, report.Violations[0]))
		}
	})
}

// One change in a correct history is mostly found. Not all can be: some make
// another correct history.
func TestMutationsAreFound(t *testing.T) {
	tried, found := make(map[string]int), make(map[string]int)
	rapid.Check(t, func(t *rapid.T) {
		in := random(t).input()
		what := mutate(t, &in)
		if what == "" {
			return
		}
		tried[what]++
		if len(check.Check(in).Violations) > 0 {
			found[what]++
		}
	})
	all, hits := 0, 0
	for what, n := range tried {
		t.Logf("%-32s %3d of %3d", what, found[what], n)
		all, hits = all+n, hits+found[what]
	}
	require.Greater(t, 10*hits, 8*all)
}

// mutate changes one fact, and says which, or "" if there is none of that sort.
func mutate(t *rapid.T, in *check.Input) string {
	events := func(kind history.Kind) (list []*history.Event) {
		for i := range in.Events {
			if in.Events[i].Kind == kind {
				list = append(list, &in.Events[i])
			}
		}
		return list
	}
	entries := func(command, key string) (list []*aof.Entry) {
		for i := range in.Entries {
			if e := &in.Entries[i]; e.Args[0] == command && (key == "" || len(e.Args[1]) == len(key)) {
				list = append(list, e)
			}
		}
		return list
	}
	oneEvent := func(kind history.Kind) *history.Event {
		if list := events(kind); len(list) > 0 {
			return rapid.SampledFrom(list).Draw(t, "event")
		}
		return nil
	}
	oneEntry := func(command, key string) *aof.Entry {
		if list := entries(command, key); len(list) > 0 {
			e := rapid.SampledFrom(list).Draw(t, "entry")
			e.Args = slices.Clone(e.Args)
			return e
		}
		return nil
	}
	what := rapid.SampledFrom([]string{
		"token of a grant changed", "grant before its call", "validity overstated", "done late", "unlock not called", "lock deleted unasked",
		"grant set to another", "deadline missing", "lease prolonged by itself", "expiry by delete", "waiter popped for nothing",
	}).Draw(t, "mutation")
	switch what {
	case "token of a grant changed":
		if e := oneEvent(history.Granted); e != nil {
			e.Token += int64(rapid.SampledFrom([]int{-3, -1, 1, 1000}).Draw(t, "by"))
			return what
		}
	case "validity overstated":
		if e := oneEvent(history.Granted); e != nil {
			e.ValidUntil += int64(time.Second)
			return what
		}
	case "grant before its call":
		if e := oneEvent(history.Granted); e != nil {
			e.At -= int64(50 * time.Millisecond)
			return what
		}
	case "done late":
		if e := oneEvent(history.Done); e != nil {
			e.At += int64(200 * time.Millisecond)
			return what
		}
	case "unlock not called":
		if e := oneEvent(history.Unlock); e != nil {
			e.Kind = "nothing"
			return what
		}
	case "lock deleted unasked":
		if e := oneEntry("UNLINK", "k"); e != nil && len(e.Args[1]) == 1 {
			e.Args[0] = "FLUSHALL"
			return what
		}
	case "grant set to another":
		if e := oneEntry("SET", "k"); e != nil {
			e.Args[2] = "op99"
			return what
		}
	case "deadline missing":
		if e := oneEntry("SET", "k"); e != nil {
			e.Args = e.Args[:3]
			return what
		}
	case "lease prolonged by itself":
		if e := oneEntry("PEXPIREAT", "k"); e != nil {
			e.Args[2] += "0"
			return what
		}
	case "expiry by delete":
		if e := oneEntry("SET", "k"); e != nil {
			e.Args[4] = e.Args[4][:len(e.Args[4])-3] + "999"
			move(e, 4, 2000)
			return what
		}
	case "waiter popped for nothing":
		if e := oneEntry("ZPOPMIN", ""); e != nil {
			e.Args[0] = "PUBLISH"
			return what
		}
	}
	return ""
}
