package check_test

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock/test/aof"
	"github.com/redislock/redislock/test/check"
	"github.com/redislock/redislock/test/history"
)

// usual is a run with something of everything, in which all is well: a holds,
// b and c wait; a extends and writes, and hands over to b, whose lease ends; c
// takes over.
func usual(w *world) {
	a := w.lock("a", "k", "p1", 1000, false)
	w.pass(3)
	b := w.lock("b", "k", "p2", 500, false)
	w.pass(3)
	c := w.lock("c", "k", "p1", 1000, true)
	w.pass(3)
	w.extend(a, 2000)
	w.write(a, w.fence)
	w.unlock(a)
	w.pass(20)
	w.write(b, w.fence)
	w.pass(520)
	w.look(c)
	w.write(c, w.fence)
	w.pass(300)
	w.prolong(c, 1000)
	c.validUntil = w.now + 980e6
	w.event(history.Valid, c, func(e *history.Event) { e.ValidUntil = c.validUntil })
	w.pass(10)
	w.unlock(c)
	w.pass(2000)
	w.of("p1", history.Closed, nil)
	w.of("p2", history.Closed, nil)
}

// verify checks a run, and that the one violation that is wanted is among those
// that were found. Without one, that there is none, and that the checker looked
// at something.
func verify(t *testing.T, in check.Input, guarantee, checker string, bad bool) {
	t.Helper()
	report := check.Check(in)
	require.Empty(t, report.Unknown)
	found := false
	for _, v := range report.Violations {
		found = found || v.Guarantee == guarantee && v.Checker == checker
		story := check.Story(in, v)
		require.Contains(t, story, v.Text)
		for _, op := range v.Ops {
			require.Contains(t, story, op)
		}
	}
	if bad {
		require.True(t, found, "%s %s was not found among %v\n%v", guarantee, checker, report.Violations, report)
		return
	}
	require.Empty(t, report.Violations, "%v", report)
	n := 0
	for _, e := range report.Examined {
		if e.Guarantee == guarantee && e.Checker == checker {
			n += e.Facts
		}
	}
	require.Positive(t, n, "%s %s looked at nothing\n%v", guarantee, checker, report)
}

func move(e *aof.Entry, arg int, by int64) {
	n, err := strconv.ParseInt(e.Args[arg], 10, 64)
	if err != nil {
		panic(err)
	}
	e.Args[arg] = strconv.FormatInt(n+by, 10)
}

func remove(in *check.Input, kind history.Kind, op string) {
	e := event(in.Events, kind, op)
	e.Kind = "nothing"
}

// Each checker passes a good run and finds what is wrong with the same run once
// one thing in it is changed.
func TestEachCheckerFindsWhatIsWrong(t *testing.T) {
	healed := func(w *world) {
		usual(w)
		w.events = append([]history.Event{{At: 1, Kind: history.Healed}}, w.events...)
	}
	tests := []struct {
		guarantee, checker string
		name               string
		good               func(w *world)
		spoil              func(in *check.Input)
	}{
		{"G1", "belief windows", "granted while another believes", usual, func(in *check.Input) {
			event(in.Events, history.Granted, "b").At = event(in.Events, history.Unlock, "a").At - 1
		}},
		{"G1", "belief windows", "cancelling after the grant is no end", usual, func(in *check.Input) {
			e := event(in.Events, history.Unlock, "a")
			e.Kind = history.Cancel
		}},
		{"G1", "deadlines", "set without a deadline", usual, func(in *check.Input) {
			e := last(in.Entries, "SET", "k", "b")
			e.Args = e.Args[:3]
		}},
		{"G1", "linearizable", "the second is released before the first", usual, func(in *check.Input) {
			event(in.Events, history.Granted, "b").At = event(in.Events, history.Unlock, "a").At - 1
		}},
		{"G8", "owners", "deleted without Unlock", usual, func(in *check.Input) { remove(in, history.Unlock, "c") }},
		{"G8", "owners", "handed over before Unlock", usual, func(in *check.Input) {
			event(in.Events, history.Unlock, "a").At += 10e6
		}},
		{"G8", "owners", "expired before its time", usual, func(in *check.Input) {
			move(last(in.Entries, "SET", "k", "b"), 4, 5000)
		}},
		{"G8", "owners", "overwritten by one who was not next", usual, func(in *check.Input) {
			last(in.Entries, "UNLINK", "k").Args = []string{"PUBLISH"}
			last(in.Entries, "ZPOPMIN").Args = []string{"PUBLISH"}
		}},
		{"G8", "owners", "removed by a fault nobody admits to", usual, func(in *check.Input) {
			last(in.Entries, "UNLINK", "k").Args = []string{"FLUSHALL"}
		}},
		{"G8", "owners", "set to a value nobody asked for", usual, func(in *check.Input) {
			last(in.Entries, "SET", "k", "c").Args[2] = "x"
		}},
		{"G8", "leases", "a lease longer than asked for", usual, func(in *check.Input) {
			move(last(in.Entries, "SET", "k", "a"), 4, 1500)
		}},
		{"G8", "prolongations", "prolonged though nobody asked", usual, func(in *check.Input) {
			remove(in, history.Extend, "a")
		}},
		{"G8", "prolongations", "shortened", usual, func(in *check.Input) {
			move(last(in.Entries, "PEXPIREAT", "k"), 2, -500)
		}},
		{"G8", "prolongations", "by more than asked", usual, func(in *check.Input) {
			move(last(in.Entries, "PEXPIREAT", "k"), 2, 5000)
		}},
		{"G6", "granted in time", "granted when it was over", usual, func(in *check.Input) {
			e := event(in.Events, history.Granted, "a")
			e.ValidUntil = e.At - 40e6
		}},
		{"G6", "never after the truth", "ValidUntil is later than the deadline", usual, func(in *check.Input) {
			event(in.Events, history.Valid, "c").ValidUntil += 30e6
		}},
		{"G6", "never after the truth", "believed before Redis said so", usual, func(in *check.Input) {
			event(in.Events, history.Granted, "b").At = event(in.Events, history.Call, "b").At + 1
		}},
		{"G7", "told in time", "told late", usual, func(in *check.Input) {
			event(in.Events, history.Done, "b").At += 40e6
		}},
		{"G7", "told at all", "never told", usual, func(in *check.Input) { remove(in, history.Done, "b") }},
		{"G10", "unique", "a token twice", usual, func(in *check.Input) {
			event(in.Events, history.Granted, "b").Token = event(in.Events, history.Granted, "a").Token
		}},
		{"G10", "drawn", "a token that Redis knows nothing of", usual, func(in *check.Input) {
			event(in.Events, history.Granted, "c").Token += 7
		}},
		{"G10", "rising in real time", "a lower token for a later call", func(w *world) {
			usual(w)
			w.unlock(w.lock("d", "k", "p1", 1000, false))
		}, func(in *check.Input) {
			c, d := event(in.Events, history.Granted, "c"), event(in.Events, history.Granted, "d")
			c.Token, d.Token = d.Token, c.Token
		}},
		{"G10", "rising in Redis", "a lower token for a later grant", usual, func(in *check.Input) {
			b, c := event(in.Events, history.Granted, "b"), event(in.Events, history.Granted, "a")
			b.Token, c.Token = c.Token, b.Token
		}},
		{"G10", "resource", "a lower token is accepted after a higher one", usual, func(in *check.Input) {
			event(in.Events, history.Accepted, "a").At = event(in.Events, history.Accepted, "b").At + 1
		}},
		{"G10", "holders' writes", "a holder is refused", usual, func(in *check.Input) {
			event(in.Events, history.Written, "b").Accepted = false
		}},
		{"G2", "first come, first served", "the second is served first", usual, func(in *check.Input) {
			// c's comes first, with the score that is higher all the same.
			c := last(in.Entries, "ZADD", queueOf("k"))
			for i := range in.Entries {
				if b := &in.Entries[i]; b.Args[0] == "ZADD" && b.Args[1] == queueOf("k") {
					b.Args, c.Args = c.Args, b.Args
					break
				}
			}
		}},
		{"G2", "newcomers", "a newcomer passes the line", func(w *world) {
			a := w.lock("a", "k", "p1", 1000, false)
			b := w.lock("b", "k", "p2", 1000, false)
			w.unlock(a)
			w.pass(5)
			w.unlock(b)
			w.unlock(w.lock("c", "k", "p1", 1000, false))
		}, func(in *check.Input) {
			// b's turn does not come: it stays in line and c takes the key.
			last(in.Entries, "ZPOPMIN").Args = []string{"DEL", "k"}
			last(in.Entries, "SET", "k", "b").Args[2] = "c"
			last(in.Entries, "DEL", "k").Args = []string{"PUBLISH"}
		}},
		{"G3", "handed over", "released to nobody", usual, func(in *check.Input) {
			last(in.Entries, "UNLINK", "k").Args[0] = "DEL"
		}},
		{"G4", "nobody skipped", "a live waiter is skipped", func(w *world) {
			a := w.lock("a", "k", "p1", 1000, false)
			w.lock("b", "k", "p2", 1000, false)
			w.kill("p2")
			c := w.lock("c", "k", "p3", 1000, false)
			w.unlock(a)
			w.unlock(c)
		}, func(in *check.Input) {
			event(in.Events, history.Killed, "").Kind = "nothing"
		}},
		{"G4", "the dead are skipped", "one who is long dead is served", func(w *world) {
			a := w.lock("a", "k", "p1", 1000, false)
			w.lock("b", "k", "p2", 1000, false)
			w.pass(400)
			w.unlock(a)
			w.kill("p2")
			w.pass(1500)
			w.unlock(w.lock("c", "k", "p1", 1000, false))
		}, func(in *check.Input) {
			event(in.Events, history.Killed, "").At -= 300e6
		}},
		{"G4", "places kept", "another place after a skip", func(w *world) {
			a := w.lock("a", "k", "p1", 1000, false)
			b := w.lock("b", "k", "p2", 1000, false)
			w.of("", history.Fault, func(e *history.Event) { e.Name = "cut" })
			w.dead["p2"] = true
			c := w.lock("c", "k", "p3", 1000, false)
			w.unlock(a)
			w.dead["p2"] = false
			w.look(b)
			w.unlock(c)
			w.unlock(b)
		}, func(in *check.Input) {
			in.Undisturbed = func(string) bool { return true }
			move(last(in.Entries, "ZADD", queueOf("k")), 3, 1)
		}},
		{"G4", "queue kept", "the queue goes with people in it", func(w *world) {
			a := w.lock("a", "k", "p1", 1000, false)
			b := w.lock("b", "k", "p2", 1000, false)
			w.of("", history.Fault, func(e *history.Event) { e.Name = "evicted" })
			w.begin()
			w.entry("UNLINK", queueOf("k"))
			w.key("k").queue = nil
			w.look(b)
			w.unlock(a)
			w.unlock(b)
		}, func(in *check.Input) {
			in.Undisturbed = func(string) bool { return true }
		}},
		{"G5", "nobody forgotten", "no answer to a caller", healed, func(in *check.Input) {
			remove(in, history.Granted, "c")
		}},
		{"G5", "no idle key", "a key stays free while somebody waits", func(w *world) {
			healed(w)
			w.pass(5000)
			w.unlock(w.lock("d", "k", "p1", 1000, false))
			w.pass(2000)
		}, func(in *check.Input) {
			event(in.Events, history.Call, "d").At -= 2e9
		}},
		{"G8", "unlock answers", "nil for a lock that expired", func(w *world) {
			a := w.lock("a", "k", "p1", 100, false)
			w.pass(200)
			w.unlock(a)
			b := w.lock("b", "k", "p1", 100, false)
			w.unlock(b)
		}, func(in *check.Input) {
			e := event(in.Events, history.Unlocked, "a")
			e.Err, e.Is = "", ""
		}},
		{"G8", "extend answers", "nil for a lock that was gone", usual, func(in *check.Input) {
			event(in.Events, history.Extend, "a").At += 20e6
			event(in.Events, history.Extended, "a").At += 20e6
		}},
		{"G9", "goroutines left", "a goroutine outlives Close", usual, func(in *check.Input) {
			event(in.Events, history.Closed, "").Goroutines = 1
		}},
	}
	for _, test := range tests {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) {
			w := newWorld()
			test.good(w)
			in := w.input()
			verify(t, in, test.guarantee, test.checker, false)
			test.spoil(&in)
			verify(t, in, test.guarantee, test.checker, true)
		})
	}
}

func TestWhoIsToldWhenItIsOverBelievesNothing(t *testing.T) {
	w := newWorld()
	w.lock("a", "k", "p1", 100, false)
	w.pass(102)
	w.lock("b", "k", "p2", 1000, false)
	in := w.input()
	told := event(in.Events, history.Granted, "a")
	told.At = event(in.Events, history.Granted, "b").At + 1e6
	verify(t, in, "G1", "belief windows", false)
	told.ValidUntil = told.At + 1e6
	remove(&in, history.Done, "a")
	verify(t, in, "G1", "belief windows", true)
}

func TestLossIsTrue(t *testing.T) {
	w := newWorld()
	a := w.lock("a", "k", "p1", 1000, false)
	w.pass(5)
	w.begin()
	w.entry("DEL", "k")
	w.key("k").holder = ""
	w.pass(5)
	w.unlock(a)
	in := w.input()
	in.SecondClass.Deletion = true
	verify(t, in, "G8", "loss is true", false)
	last(in.Entries, "DEL").Args = []string{"PUBLISH"}
	verify(t, in, "G8", "loss is true", true)
}

func TestKeysLeft(t *testing.T) {
	w := newWorld()
	usual(w)
	in := w.input()
	in.Leftover = []check.Leftover{{Key: "redislock:fence", TTL: time.Hour}, {Key: "k", TTL: time.Second}}
	verify(t, in, "G9", "keys left", false)
	in.Leftover[1].TTL = -1
	verify(t, in, "G9", "keys left", true)
}

// A flush lets two believe. That is no violation if the run admits to it, the
// first is told as soon as it asks, and nothing else took the key away.
func TestFlushMayBreakExclusionButIsSeen(t *testing.T) {
	build := func() check.Input {
		w := newWorld()
		a := w.lock("a", "k", "p1", 1000, false)
		w.pass(10)
		w.flush()
		b := w.lock("b", "k", "p2", 1000, false)
		w.pass(10)
		w.unlock(a)
		w.unlock(b)
		in := w.input()
		in.SecondClass.Flush = true
		return in
	}
	verify(t, build(), "G1", "unseen loss", false)

	silent := build()
	e := event(silent.Events, history.Unlocked, "a")
	e.Err, e.Is = "", ""
	verify(t, silent, "G1", "unseen loss", true)

	secret := build()
	secret.SecondClass.Flush = false
	verify(t, secret, "G1", "belief windows", true)

	other := build()
	last(other.Entries, "FLUSHALL").Args = []string{"PUBLISH"}
	verify(t, other, "G1", "belief windows", true)
}

// Other programs set the key and delete it; they leave no events.
func TestOtherPrograms(t *testing.T) {
	w := newWorld()
	w.begin()
	w.entry("SET", "k", "foreign:1", "PXAT", strconv.FormatInt(w.wall()+1000, 10))
	w.key("k").holder, w.key("k").deadline = "foreign:1", w.wall()+1000
	a := w.lock("a", "k", "p1", 1000, false)
	w.begin()
	w.entry("DEL", "k")
	w.key("k").holder = ""
	w.pass(1)
	w.look(a)
	w.unlock(a)
	in := w.input()
	verify(t, in, "G8", "owners", false)
	last(in.Entries, "DEL", "k") // the last one is a's: the first one has to go
	for i := range in.Entries {
		if in.Entries[i].Args[0] == "DEL" {
			in.Entries[i].Args = []string{"PUBLISH"}
			break
		}
	}
	verify(t, in, "G8", "owners", true)
}

func TestStoryShowsOnlyWhoIsConcerned(t *testing.T) {
	w := newWorld()
	usual(w)
	in := w.input()
	event(in.Events, history.Granted, "b").At = event(in.Events, history.Unlock, "a").At - 1
	report := check.Check(in)
	require.NotEmpty(t, report.Violations)
	v := report.Violations[0]
	require.Equal(t, []string{"a", "b"}, v.Ops)
	story := check.Story(in, v)
	require.Contains(t, story, "set       a until 1000")
	require.NotContains(t, story, " c ")
	if testing.Verbose() {
		t.Log(story)
	}
}

func TestAnIllegalHistoryIsDrawn(t *testing.T) {
	w := newWorld()
	usual(w)
	in := w.input()
	in.KeepDir = t.TempDir()
	event(in.Events, history.Granted, "b").At = event(in.Events, history.Unlock, "a").At - 1
	check.Check(in)
	files, err := os.ReadDir(in.KeepDir)
	require.NoError(t, err)
	require.Len(t, files, 1)
}
