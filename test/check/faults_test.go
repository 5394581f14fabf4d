package check_test

import (
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock/test/aof"
	"github.com/redislock/redislock/test/check"
	"github.com/redislock/redislock/test/history"
)

// What a fault excuses, and what it does not.

// gone has a lose its key in some way, and b get it, while a still believes.
func gone(end ...string) check.Input {
	w := newWorld()
	a := w.lock("a", "k", "p1", 1000, false)
	w.pass(10)
	w.begin()
	w.entry(end...)
	w.key("k").holder = ""
	if end[0] == "FLUSHALL" || end[0] == aof.Restarted {
		w.fence = noFence
	}
	w.pass(10)
	b := w.lock("b", "k", "p2", 1000, false)
	w.pass(10)
	w.unlock(a)
	w.unlock(b)
	return w.input()
}

func TestFaultsThatTakeTheLockAway(t *testing.T) {
	for name, test := range map[string]struct {
		end   []string
		admit check.SecondClass
	}{
		"flush":    {[]string{"FLUSHALL", "async"}, check.SecondClass{Flush: true}},
		"restart":  {[]string{aof.Restarted}, check.SecondClass{Restart: true}},
		"eviction": {[]string{"UNLINK", "k"}, check.SecondClass{Eviction: true}},
		"clock":    {[]string{"UNLINK", "k"}, check.SecondClass{ClockJump: true}},
		"deletion": {[]string{"DEL", "k"}, check.SecondClass{Deletion: true}},
	} {
		t.Run(name, func(t *testing.T) {
			in := gone(test.end...)
			verify(t, in, "G1", "belief windows", true)
			in.SecondClass = test.admit
			verify(t, in, "G1", "unseen loss", false)
			if name == "clock" {
				return
			}
			in.SecondClass = check.SecondClass{ClockJump: true} // another fault explains nothing
			if name != "eviction" {
				verify(t, in, "G1", "belief windows", true)
			}
		})
	}
}

// The first holder has to learn of it, from Done, Extend or Unlock.
func TestALossIsLearntOf(t *testing.T) {
	in := gone("FLUSHALL")
	in.SecondClass.Flush = true
	unlocked := event(in.Events, history.Unlocked, "a")
	unlocked.Err, unlocked.Is = "", ""
	verify(t, in, "G1", "unseen loss", true)

	done := in
	done.Events = append(done.Events, history.Event{
		At: event(in.Events, history.Granted, "b").At + 1e6, Process: "p1", Kind: history.Done, Op: "a", Key: "k",
		Err: "lost", Is: "lost",
	})
	for _, v := range check.Check(done).Violations {
		require.NotEqual(t, "unseen loss", v.Checker)
	}
}

// A process that was stopped is told late, and that is not the library's fault.
func TestStoppedProcessesAreToldLate(t *testing.T) {
	w := newWorld()
	usual(w)
	in := w.input()
	done := event(in.Events, history.Done, "b")
	from := done.At - 1e6
	done.At += 60e6
	verify(t, in, "G7", "told in time", true)

	in.Events = append(in.Events,
		history.Event{At: from, Process: "p2", Kind: history.Stopped},
		history.Event{At: from + 50e6, Process: "p2", Kind: history.Resumed})
	verify(t, in, "G7", "told in time", false)

	in.Events = in.Events[:len(in.Events)-2]
	in.Events = append(in.Events, history.Event{At: from + 50e6, Process: "p2", Kind: history.Stall, Took: 50e6})
	verify(t, in, "G7", "told in time", false)
	in.Events[len(in.Events)-1].Process = "p1" // another one's stall excuses nothing
	verify(t, in, "G7", "told in time", true)
}

// Of a process that was killed while it held, the key may only expire.
func TestADeadHoldersKeyExpires(t *testing.T) {
	w := newWorld()
	w.lock("a", "k", "p1", 1000, false)
	w.pass(1)
	w.kill("p1")
	b := w.lock("b", "k", "p2", 1000, false)
	w.pass(1010)
	w.look(b)
	w.unlock(b)
	in := w.input()
	verify(t, in, "G8", "owners", false)
	last(in.Entries, "UNLINK", "k").Args = []string{"DEL", "k"}
	verify(t, in, "G8", "owners", true)
}

// While Redis has the key for a dead holder, nobody is to blame for waiting.
func TestWaitingForADeadHolderIsNoIdleKey(t *testing.T) {
	build := func(ttl int64) check.Input {
		w := newWorld()
		w.of("", history.Healed, nil)
		w.unlock(w.lock("z", "k", "p2", 100, false))
		w.pass(8000)
		w.lock("a", "k", "p1", ttl, false)
		w.kill("p1")
		b := w.lock("b", "k", "p2", 100, false)
		w.pass(5010)
		w.look(b)
		w.unlock(b)
		in := w.input()
		in.MaxTTL = 5e9
		return in
	}
	verify(t, build(5000), "G5", "no idle key", false)
	verify(t, build(2000), "G5", "no idle key", true)
}

// A waiter that Redis had no score of when it asked for its place joins anew if it
// has had its turn, without hearing of it. One that was skipped keeps its place.
func TestAPlaceIsGivenUpByAnUnheardTurnOnly(t *testing.T) {
	build := func(served bool) check.Input {
		w := newWorld()
		w.of("", history.Fault, nil)
		a := w.lock("a", "k", "p1", 1000, false)
		b := w.lock("b", "k", "p2", 500, false)
		c := w.lock("c", "k", "p1", 500, false)
		d := w.lock("d", "k", "p1", 500, false)
		w.dead["p2"] = !served
		w.unlock(a)
		w.dead["p2"] = false
		if served { // by a message that was lost
			event(w.events, history.Granted, "b").Kind = "nothing"
			b.granted = false
			w.pass(510)
		}
		b.score = ""
		w.look(b)
		w.unlock(c)
		w.unlock(d)
		w.unlock(b)
		return w.input()
	}
	verify(t, build(true), "G2", "first come, first served", false)
	verify(t, build(false), "G2", "first come, first served", true)
}

// lostWithAMaster has a get the lock from a master that dies before its replica has
// heard of that, and b from the replica, while a still believes.
func lostWithAMaster() check.Input {
	w := newWorld()
	w.begin()
	w.entry(aof.Forked)
	a := w.lock("a", "k", "p1", 1000, false)
	w.pass(10)
	w.begin()
	w.entry(aof.Rewound)
	w.key("k").holder = ""
	w.pass(10)
	b := w.lock("b", "k", "p2", 1000, false)
	w.pass(10)
	w.unlock(a)
	w.unlock(b)
	return w.input()
}

func TestLockThatIsLostWithAMaster(t *testing.T) {
	in := lostWithAMaster()
	verify(t, in, "G1", "belief windows", true)
	verify(t, in, "G8", "owners", true)
	in.SecondClass = check.SecondClass{Failover: true}
	for _, one := range [][2]string{{"G1", "belief windows"}, {"G1", "unseen loss"}, {"G1", "linearizable"}, {"G8", "owners"}, {"G10", "drawn"}, {"G6", "never after the truth"}} {
		verify(t, in, one[0], one[1], false)
	}
	event(in.Events, history.Unlocked, "a").Err = ""
	verify(t, in, "G1", "unseen loss", true)
}

// Of a release that is lost with a master, the lease is left. Nobody can have done
// anything wrong.
func TestReleaseThatIsLostWithAMaster(t *testing.T) {
	w := newWorld()
	a := w.lock("a", "k", "p1", 100, false)
	until := w.key("k").deadline
	w.pass(10)
	w.begin()
	w.entry(aof.Forked)
	w.unlock(a)
	w.pass(10)
	w.begin()
	w.entry(aof.Rewound)
	w.key("k").holder, w.key("k").deadline = "a", until
	w.pass(200)
	b := w.lock("b", "k", "p2", 1000, false)
	w.unlock(b)
	in := w.input()
	in.SecondClass = check.SecondClass{Failover: true}
	report := check.Check(in)
	require.Empty(t, report.Violations)
	require.NotZero(t, report.Facts("linearizable"))
}

// twoMasters has a master that was replaced and does not know that prolong and release
// the lock of first, give it to x, and have late join its line; and the one in its
// place see the lease of first end, and give the lock to y, all at the same time.
func twoMasters() (w *world, x, y, late *acquisition) {
	w = newWorld()
	first := w.lock("first", "k", "p1", 50, false)
	forked, fence, until := w.now, w.fence, w.key("k").deadline
	w.begin()
	w.entry(aof.Forked)
	w.extend(first, 200)
	w.pass(75)
	w.unlock(first)
	x = w.lock("x", "k", "p1", 1000, false)
	late = w.lock("late", "k", "p3", 1000, false)
	w.pass(50)
	over := w.now
	w.begin()
	w.entry(aof.Rewound, strconv.FormatInt(w.wall(), 10))

	w.now, w.fence = forked, fence
	*w.key("k") = lockKey{holder: "first", deadline: until}
	w.pass(60)
	y = w.lock("y", "k", "p2", 1000, false)
	w.now = over
	return w, x, y, late
}

func TestTwoMastersAtATime(t *testing.T) {
	w, x, y, late := twoMasters()
	w.lock("z", "k", "p2", 1000, false) // joins before late, which has an older place
	w.look(late)
	w.unlock(x)
	w.unlock(y)
	w.unlock(late)
	w.unlock(w.ops["z"])
	in := w.input()
	in.SecondClass = check.SecondClass{Failover: true}
	report := check.Check(in)
	require.Empty(t, report.Violations)
	require.NotZero(t, report.Facts("linearizable"))

	in.SecondClass = check.SecondClass{}
	verify(t, in, "G1", "belief windows", true)
}

func TestLockOfAMasterThatWasReplacedMustBeSeenToBeLost(t *testing.T) {
	w, x, y, _ := twoMasters()
	w.unlock(x)
	w.unlock(y)
	in := w.input()
	in.SecondClass = check.SecondClass{Failover: true}
	verify(t, in, "G1", "unseen loss", false)
	event(in.Events, history.Unlocked, "x").Err = ""
	verify(t, in, "G1", "unseen loss", true)
}

// Each of the two is a lock by itself.
func TestTwoHoldersAtOneOfTwoMasters(t *testing.T) {
	w, _, y, _ := twoMasters()
	w.key("k").holder = ""
	z := w.lock("z", "k", "p2", 1000, false)
	w.unlock(z)
	w.unlock(y)
	in := w.input()
	in.SecondClass = check.SecondClass{Failover: true}
	verify(t, in, "G1", "belief windows", true)
	verify(t, in, "G8", "owners", true)
}

// What the one has not, the other may have.
func TestLostByOneOfTwoMasters(t *testing.T) {
	for _, during := range []bool{true, false} {
		w, x, y, _ := twoMasters()
		w.pass(10)
		w.unlock(x)
		w.unlock(y)
		in := w.input()
		in.SecondClass = check.SecondClass{Failover: true}
		unlock, unlocked := event(in.Events, history.Unlock, "y"), event(in.Events, history.Unlocked, "y")
		unlocked.Err, unlocked.Is = "lock not held", "notheld lost"
		if during {
			unlock.At = event(in.Events, history.Granted, "y").At + 1000
			unlocked.At = unlock.At + 1000
		}
		in.Entries = in.Entries[:len(in.Entries)-1] // its release
		verify(t, in, "G8", "loss is true", !during)
	}
}

// Tokens of two servers are apart by 10 ms at most.
func TestTokensOfTwoMasters(t *testing.T) {
	tokens := func(behind int64) check.Input {
		w, x, y, _ := twoMasters()
		w.unlock(x)
		w.unlock(y)
		in := w.input()
		granted := event(in.Events, history.Granted, "x")
		before := event(in.Events, history.Granted, "y").Token
		for i := range in.Entries {
			if e := &in.Entries[i]; len(e.Args) > 2 && e.Args[1] == "redislock:fence" && e.Args[2] == strconv.FormatInt(granted.Token, 10) {
				e.Args = slices.Clone(e.Args)
				e.Args[2] = strconv.FormatInt(before-behind, 10)
			}
		}
		granted.Token = before - behind
		in.SecondClass = check.SecondClass{Failover: true}
		return in
	}
	for behind, broken := range map[int64]bool{0: false, 10_000: false, 12_000: true} {
		verify(t, tokens(behind), "G10", "rising in real time", broken)
	}
}

// A process that was killed is known to be gone only some time later.
func TestDeathThatWasSeenLate(t *testing.T) {
	w := newWorld()
	a := w.lock("a", "k", "p1", 100, false)
	w.dead[a.process] = true
	w.pass(600)
	w.kill(a.process)
	require.Empty(t, check.Check(w.input()).Violations)
}
