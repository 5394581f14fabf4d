package aof

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// resp writes commands as Redis does; what begins with "#" is an annotation.
func resp(commands ...string) string {
	var b strings.Builder
	for _, command := range commands {
		if command[0] == '#' {
			b.WriteString(command + "\r\n")
			continue
		}
		words := strings.Fields(command)
		fmt.Fprintf(&b, "*%d\r\n", len(words))
		for _, word := range words {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(word), word)
		}
	}
	return b.String()
}

func texts(entries []Entry) (list []string) {
	for _, e := range entries {
		list = append(list, fmt.Sprintf("%d/%d@%d %s", e.Serial, e.Step, e.Second, strings.Join(e.Args, " ")))
	}
	return list
}

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

func TestFilesAreReadInTheOrderOfTheManifest(t *testing.T) {
	first := write(t, map[string]string{
		"a.manifest": "file a.10.incr.aof seq 10 type i\nfile a.2.incr.aof seq 2 type i\n" +
			"file a.1.base.aof seq 1 type b\nfile a.0.incr.aof seq 0 type h\n",
		"a.1.base.aof":  resp("#TS:5", "SELECT 0", "set a 1"),
		"a.2.incr.aof":  resp("#TS:6", "MULTI", "SET a 2", "DEL b c", "EXEC", "SELECT 1", "SET x 1"),
		"a.10.incr.aof": resp("SET a 3"),
	})
	second := write(t, map[string]string{
		"a.manifest":   "file a.1.incr.aof seq 1 type i\n",
		"a.1.incr.aof": resp("#TS:9", "SET a 4"),
	})
	entries, err := Read(first, second)
	require.NoError(t, err)
	require.Equal(t, []string{
		"1/1@5 SET a 1", "2/2@6 SET a 2", "3/2@6 DEL b c", "4/4@6 SET a 3", "5/5@0 RESTARTED", "6/6@9 SET a 4",
	}, texts(entries))
}

// Wherever kill -9 cuts the file off, the whole steps before that are read.
func TestAFileMayEndAnywhere(t *testing.T) {
	text := resp("#TS:5", "SET a 1", "MULTI", "SET a 2", "DEL b", "EXEC", "#TS:6", "SET a 3")
	whole := []string{"1/1@5 SET a 1", "2/2@5 SET a 2", "3/2@5 DEL b", "4/3@6 SET a 3"}
	seen := make(map[int]bool)
	for end := range len(text) + 1 {
		dir := write(t, map[string]string{"a.manifest": "file f seq 1 type i", "f": text[:end]})
		entries, err := Read(dir)
		require.NoError(t, err, "cut at %d", end)
		require.Contains(t, []int{0, 1, 3, 4}, len(entries), "cut at %d", end)
		if len(entries) > 0 {
			require.Equal(t, whole[:len(entries)], texts(entries), "cut at %d", end)
		}
		seen[len(entries)] = true
	}
	require.Len(t, seen, 4)
}

func TestWhatIsNoAppendOnlyFileIsAnError(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"no manifest":          {"f": ""},
		"an empty manifest":    {"a.manifest": ""},
		"a missing file":       {"a.manifest": "file f seq 1 type i"},
		"an RDB preamble":      {"a.manifest": "file f seq 1 type b", "f": "REDIS0011"},
		"garbage":              {"a.manifest": "file f seq 1 type i", "f": "hello\r\n"},
		"a bad length":         {"a.manifest": "file f seq 1 type i", "f": "*1\r\n$x\r\n"},
		"cut off, yet goes on": {"a.manifest": "file f seq 1 type b\nfile g seq 1 type i", "f": "*1\r\n$3\r\nDE", "g": ""},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			_, err := Read(write(t, files))
			require.Error(t, err)
		})
	}
}

func TestQueueNamesLeadToTheLockKey(t *testing.T) {
	for queue, key := range map[string]string{
		"redislock:queue:{order:42}":    "order:42",
		"redislock:queue::{tag}rest":    "{tag}rest",
		"redislock:queue:{123}}a}b":     "a}b",
		"redislock:queue:{123}}}":       "}",
		"redislock:queue:{{}":           "{",
		"redislock:queue:::{tag}":       ":{tag}",
		"redislock:queue:{{open:{more}": "{open:{more",
	} {
		lock, ok := lockOfQueue(queue)
		require.True(t, ok, queue)
		require.Equal(t, key, lock)
	}
	for _, name := range []string{"redislock:queue:", "redislock:queue:x", "redislock:fence", "redislock:queue:{a}b"} {
		_, ok := lockOfQueue(name)
		require.False(t, ok, name)
	}
}

func TestTheQueuePopsAsASortedSetDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q, model := newQueue(), map[string]float64{}
		members := rapid.StringMatching("[a-e]")
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				m, score := members.Draw(t, "member"), float64(rapid.IntRange(0, 3).Draw(t, "score"))
				q.add(m, score)
				model[m] = score
			case 1:
				m := members.Draw(t, "member")
				_, there := model[m]
				require.Equal(t, there, q.remove(m))
				delete(model, m)
			case 2:
				var order []place
				for m, score := range model {
					order = append(order, place{score, m})
				}
				p, ok := q.popMin()
				require.Equal(t, len(order) > 0, ok)
				if ok {
					slices.SortFunc(order, func(a, b place) int {
						if placeHeap([]place{a, b}).Less(0, 1) {
							return -1
						}
						return 1
					})
					require.Equal(t, order[0], p)
					delete(model, p.member)
				}
			}
			require.Len(t, q.scores, len(model))
		}
	})
}

func TestTimesAreNarrowedByTheStepsAround(t *testing.T) {
	second := func(step int, second int64, args string) Entry {
		return Entry{Serial: step, Step: step, Second: second, Args: strings.Fields(args)}
	}
	log := Replay([]Entry{
		second(1, 10, "SET k a PXAT 11200"), // at 10.200
		second(2, 10, "DEL k"),
		second(3, 10, "SET k b PXAT 11700"), // at 10.700
		second(4, 10, "DEL k"),
		second(5, 11, "SET k c PXAT 13050"), // took until 12.050, as the server was stopped meanwhile
		second(6, 12, "SET k d PXAT 99999"), // 98.999: cannot be
	}, func(string) (int64, bool) { return 1000, true })
	for step, want := range [][2]int64{1: {10200, 10200}, {10200, 10700}, {10700, 10700}, {10700, 10999}, {12050, 12050}, {12050, 12999}} {
		if want != [2]int64{} {
			earliest, latest := log.Span(step)
			require.Equal(t, want, [2]int64{earliest, latest}, "step %d", step)
		}
	}
}

// in is an entry of a step, at ten seconds.
func in(serial, step int, args string) Entry {
	return Entry{Serial: serial, Step: step, Second: 10, Args: strings.Fields(args)}
}

// A token is one more than the last, from nothing if need be. A script that finds it
// too low sets the fence to the server's clock, and what it had drawn does not count.
func TestTheFenceIsReplayed(t *testing.T) {
	at := func(step int, args string) Entry { return in(step, step, args) }
	log := Replay([]Entry{
		at(1, "INCR redislock:fence"),
		at(2, "SET redislock:fence 10200000 PXAT 86410200"), // at 10.200
		at(3, "INCRBY redislock:fence 3"),
		at(4, "SET redislock:fence 10200004 PXAT 86410300"), // whenever it was
		at(5, "SET redislock:fence 10700000 PXAT 86410700"),
		at(6, "FLUSHALL"),
		at(7, "INCR redislock:fence"),
		at(8, "SET redislock:fence 10800000 PXAT 86410800"),
		at(9, "UNLINK redislock:fence"),
		at(10, "INCR redislock:fence"),
		in(11, 11, "INCR redislock:fence"),
		in(12, 11, "SET redislock:fence 10900000 PXAT 86410900"),
		in(13, 11, "INCR redislock:fence"), // the script draws once more
		at(14, "SET redislock:fence 10900002 PXAT 86410900"),
		in(15, 15, "INCR redislock:fence"),
		in(16, 15, "SET redislock:fence 10900004 PXAT 86410900"), // by raise.lua
	}, nil)
	var drawn []int64
	for _, draw := range log.Draws {
		drawn = append(drawn, draw.Token)
	}
	require.Equal(t, []int64{1, 10200000, 10200001, 10200002, 10200003, 10200004, 10700000, 1, 10800000, 1, 10900000, 10900001, 10900002, 10900004}, drawn)
	for step, want := range [][2]int64{1: {10000, 10200}, {10200, 10200}, {10200, 10700}, {10200, 10700}, {10700, 10700}, 11: {10900, 10900}, 15: {10900, 10900}} {
		if want != [2]int64{} {
			earliest, latest := log.Span(step)
			require.Equal(t, want, [2]int64{earliest, latest}, "step %d", step)
		}
	}
}

// Whoever joins has joined once, though the script moves it to the end of the line.
func TestAJoinThatIsMovedIsOne(t *testing.T) {
	log := Replay([]Entry{
		in(1, 1, "ZADD redislock:queue:{k} NX 20 m:5:1:a"),
		in(2, 2, "ZADD redislock:queue:{k} NX 10 m:5:2:b"),
		in(3, 2, "ZADD redislock:queue:{k} 21 m:5:2:b"),
		in(4, 3, "ZPOPMIN redislock:queue:{k}"),
		in(5, 4, "ZPOPMIN redislock:queue:{k}"),
	}, nil)
	var told []string
	for _, f := range log.Keys["k"].Facts {
		told = append(told, fmt.Sprintf("%v %s %v", f.Kind, f.Value, f.Score))
	}
	require.Equal(t, []string{"join a 20", "join b 21", "pop a 20", "pop b 21"}, told)
}

// A script that pops a waiter and finds that it cannot be told puts it back: nothing has
// happened to it.
func TestAWaiterThatIsPutBackWasNotPopped(t *testing.T) {
	log := Replay([]Entry{
		in(1, 1, "ZADD redislock:queue:{k} NX 20 m:5:1:a"),
		in(2, 2, "ZADD redislock:queue:{k} NX 30 m:5:2:b"),
		in(3, 3, "ZPOPMIN redislock:queue:{k}"),
		in(4, 3, "ZADD redislock:queue:{k} 20 m:5:1:a"),
		in(5, 4, "ZPOPMIN redislock:queue:{k}"),
		in(6, 4, "ZADD redislock:queue:{k} 20 m:5:1:a"),
		in(7, 4, "ZPOPMIN redislock:queue:{k} 2"),
		in(8, 4, "SET k b PXAT 9000"),
		in(9, 5, "ZADD redislock:queue:{k} 40 m:5:1:a"),
	}, nil)
	var told []string
	for _, f := range log.Keys["k"].Facts {
		told = append(told, fmt.Sprintf("%v %s %v %t", f.Kind, f.Value, f.Score, f.Granted))
	}
	require.Equal(t, []string{"join a 20 false", "join b 30 false", "pop a 20 false", "pop b 30 true", "set b 0 false", "join a 40 false"}, told)
}
