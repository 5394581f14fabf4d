package aof

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func entriesOf(texts ...string) (entries []Entry) {
	for i, text := range texts {
		entries = append(entries, Entry{Serial: i + 1, Step: i + 1, Args: strings.Fields(text)})
	}
	return entries
}

func plain(entries []Entry) (list []string) {
	for _, e := range entries {
		list = append(list, strings.Join(e.Args, " "))
	}
	return list
}

// A server that began to follow another one goes on where both have the same mark.
func TestHistoryOfServersThatTakeEachOthersPlace(t *testing.T) {
	file := func(base, increment string) string {
		return write(t, map[string]string{
			"appendonly.aof.manifest":   "file appendonly.aof.1.base.aof seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n",
			"appendonly.aof.1.base.aof": base,
			"appendonly.aof.1.incr.aof": "#TS:10\r\n" + increment,
		})
	}
	first := file("", resp("SET a 1", "SET redislock:mark:{k} 1", "SET b 1", "SET redislock:mark:{k} 2", "SET c 1"))
	second := file(resp("SET a 1", "SET b 1"), resp("SET b 1", "SET redislock:mark:{k} 2", "SET c 1", "SET d 1", "SET redislock:mark:{k} 3"))
	third := file(resp("SET d 1"), resp("SET redislock:mark:{k} 3", "SET e 1"))

	entries, err := ReadFollowed(first, second, third)
	require.NoError(t, err)
	require.Equal(t, []string{
		"SET a 1", "SET redislock:mark:{k} 1", "SET b 1", "SET redislock:mark:{k} 2", "SET c 1", "SET d 1", "SET redislock:mark:{k} 3", "SET e 1",
	}, plain(entries))
	for i, e := range entries {
		require.Equal(t, Entry{Serial: i + 1, Step: i + 1, Args: e.Args}, e, "without the second, which is the replica's")
	}

	_, err = ReadFollowed(first, third)
	require.ErrorContains(t, err, "is not in what it followed")
	_, err = ReadFollowed(first, file("", resp("SET e 1")))
	require.ErrorContains(t, err, "no mark")
}

func TestWhatWasLostIsMerged(t *testing.T) {
	kept := entriesOf("SET a 1", "SET b 1", "SET c 2", "SET d 1", "SET e 2")
	all, lost := Merge(kept,
		Lost{Entries: entriesOf("SET a 1", "SET b 1", "SET c 1", "SET x 1"), Over: 10},
		Lost{Entries: entriesOf("SET a 1", "SET b 1", "SET c 2", "SET d 1"), Over: 20}, // nothing
		Lost{Entries: entriesOf("SET a 1", "SET b 1", "SET c 2", "SET d 1", "SET e 1"), Over: 30},
	)
	require.Equal(t, 3, lost)
	require.Equal(t, []string{
		"SET a 1", "SET b 1", "FORKED", "SET c 1", "SET x 1", "REWOUND 10", "SET c 2", "SET d 1", "FORKED", "SET e 1", "REWOUND 30", "SET e 2",
	}, plain(all))
	for i, e := range all {
		require.Equal(t, i+1, e.Serial)
		require.Equal(t, i+1, e.Step)
	}
	all, lost = Merge(kept)
	require.Zero(t, lost)
	require.Equal(t, kept, all)
}

// After a Rewound all is as it was at the Forked before it: who holds, until when, who
// waits, and the fence.
func TestWhatWasLostIsTakenBack(t *testing.T) {
	log := Replay(entriesOf(
		"SET redislock:fence:{k} 100",
		"SET k a PXAT 1000",
		"ZADD redislock:queue:{k} 10 m:5:1:b",
		"ZADD redislock:queue:{k} 20 m:5:2:c",
		"SET kept a PXAT 1000",
		"SET free a PXAT 1000",
		"DEL free",
		"FORKED",
		"ZADD redislock:queue:{k} 30 m:5:3:d",
		"DEL k",
		"ZPOPMIN redislock:queue:{k}",
		"SET k b PXAT 2000",
		"INCR redislock:fence:{k}",
		"PEXPIREAT kept 3000",
		"SET free b PXAT 2000",
		"REWOUND",
		"DEL k",
		"ZPOPMIN redislock:queue:{k}",
		"INCR redislock:fence:{k}",
		"SET free c PXAT 4000",
	), nil)
	tell := func(name string) (told []string) {
		for _, f := range log.Keys[name].Facts {
			told = append(told, fmt.Sprintf("%v %s", f.Kind, f.Value))
		}
		return told
	}
	require.Equal(t, []string{
		"set a", "join b", "join c", "join d", "delete a", "pop b", "set b",
		"rewind b", "join b", "join c", "delete a", "pop b",
	}, tell("k"))
	holds := func(name string) (told []string) {
		for _, h := range log.Keys[name].Holds {
			told = append(told, fmt.Sprintf("%s until %d %v again %t", h.Value, h.Last(), h.End, h.Again))
		}
		return told
	}
	require.Equal(t, []string{"a until 1000 delete again false", "b until 2000 rewind again false", "a until 1000 delete again true"}, holds("k"))
	require.Equal(t, []string{"a until 1000  again false"}, holds("kept"))
	require.Len(t, log.Keys["kept"].Holds[0].Deadlines, 3)
	require.Equal(t, []string{"a until 1000 delete again false", "b until 2000 rewind again false", "c until 4000  again false"}, holds("free"))
	var drawn []int64
	for _, draw := range log.Draws {
		drawn = append(drawn, draw.Token)
	}
	require.Equal(t, []int64{100, 101, 101}, drawn)
}

// A mark tells when it was set.
func TestMarksTellTheTime(t *testing.T) {
	log := Replay(entriesOf("SET redislock:mark 1 PXAT 70000", "DEL k", "SET redislock:mark 2 PXAT 70020"), nil)
	earliest, latest := log.Span(2)
	require.Equal(t, [2]int64{10000, 10020}, [2]int64{earliest, latest})
}

// Two servers that took themselves for the master did so at the same time.
func TestALostHistoryHasTimesOfItsOwn(t *testing.T) {
	log := Replay(entriesOf(
		"SET redislock:mark 1 PXAT 70000", // at 10000
		"SET k a PXAT 20000",
		"FORKED",
		"SET redislock:mark 2 PXAT 75000", // at 15000
		"PEXPIREAT k 25000",
		"SET l x PXAT 25000",
		"REWOUND 16000",
		"SET redislock:mark 3 PXAT 71000", // at 11000
		"SET l y PXAT 30000",
		"SET redislock:mark 4 PXAT 77000", // at 17000
	), nil)
	spans := func(steps ...int) (all [][2]int64) {
		for _, step := range steps {
			earliest, latest := log.Span(step)
			all = append(all, [2]int64{earliest, latest})
		}
		return all
	}
	require.Equal(t, [][2]int64{{10000, 11000}, {10000, 11000}, {15000, 16000}, {15000, 16000}, {11000, 17000}}, spans(2, 3, 6, 7, 9))
	require.Equal(t, []*Fork{{Forked: 3, Rewound: 7}}, log.Forks)
	k, l := log.Keys["k"].Holds, log.Keys["l"].Holds
	require.Len(t, k, 1)
	require.Equal(t, log.Forks[0], k[0].Cut)
	require.Nil(t, k[0].Lost)
	require.Equal(t, []*Fork{log.Forks[0], nil}, []*Fork{l[0].Lost, l[1].Lost})
}

// A script whose commands took effect at several times lasted from the first to the last.
func TestScriptThatTakesItsTime(t *testing.T) {
	ttl := func(string) (int64, bool) { return 1000, true }
	log := Replay([]Entry{
		{Serial: 1, Step: 1, Second: 10, Args: []string{"SET", "k", "a", "PXAT", "11100"}},
		{Serial: 2, Step: 1, Second: 10, Args: []string{"SET", "k", "b", "PXAT", "11103"}},
	}, ttl)
	earliest, latest := log.Span(1)
	require.Equal(t, [2]int64{10100, 10103}, [2]int64{earliest, latest})
}
