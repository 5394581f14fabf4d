package aof

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func timed(at int64, texts ...string) []Entry {
	all := entriesOf(texts...)
	for i := range all {
		all[i].Earliest, all[i].Latest = at+10*int64(i), at+10*int64(i)+9
	}
	return all
}

// A key is at the source first, and then at the target, be the clocks ever so close; what
// MIGRATE wrote is left out.
func TestHistoryOfASlotThatIsMoved(t *testing.T) {
	about := func(name string) bool { return strings.Contains(name, "k") }
	source := timed(100, "SET redislock:mark:{s} 1", "SET other 1", "SET k a", "INCR fence:k", "DEL k", "DEL fence:k queue:k", "SET redislock:mark:{s} 2")
	source[3].Step = source[2].Step
	target := timed(95, "SET redislock:mark:{t} 1", "SET k b", "RESTORE-ASKING queue:k 0 x", "RESTORE-ASKING fence:k 0 x", "INCR fence:k", "SET redislock:mark:{t} 3")
	all := Renumbered(Moved(source, target, about), timed(200, "DEL k"))
	require.Equal(t, []string{
		"SET k a", "INCR fence:k", "DEL k", "SET k b", "INCR fence:k", "DEL k",
	}, plain(all))
	var steps []int
	for _, e := range all {
		steps = append(steps, e.Step)
	}
	require.Equal(t, []int{1, 1, 2, 3, 4, 5}, steps)

	// The times are those of each server, whatever the order.
	earliest, latest := Replay(all, nil).Span(3)
	require.Equal(t, [2]int64{105, 114}, [2]int64{earliest, latest})

	require.Equal(t, []string{"SET k a"}, plain(Renumbered(Moved(timed(0, "SET k a"), timed(0, "SET redislock:mark:{t} 1"), about))))
}

func TestEntriesAreSplitBehindAMark(t *testing.T) {
	all := timed(0, "SET k a", "SET redislock:mark:{s} 7", "DEL k")
	until, after, ok := AfterMark(all, "7")
	require.True(t, ok)
	require.Equal(t, all[:2], until)
	require.Equal(t, all[2:], after)
	_, _, ok = AfterMark(all, "8")
	require.False(t, ok)
}
