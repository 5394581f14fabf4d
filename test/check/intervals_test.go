package check

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Intervals do what sets of whole numbers do.
func TestIntervals(t *testing.T) {
	const size = 40
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) (s intervals, has [size]bool) {
			for range rapid.IntRange(0, 6).Draw(t, name) {
				from := rapid.IntRange(0, size).Draw(t, "from")
				to := rapid.IntRange(0, size).Draw(t, "to")
				s.add(int64(from), int64(to))
				for i := from; i < to; i++ {
					has[i] = true
				}
			}
			s.sort()
			return s, has
		}
		a, inA := draw("a")
		b, inB := draw("b")
		rest := a.without(&b)
		rest.sort()
		for i := range size {
			want := int64(0)
			if inA[i] && !inB[i] {
				want = 1
			}
			require.Equal(t, want, rest.overlap(int64(i), int64(i+1)), "at %d: %v without %v is %v", i, a, b, rest)
		}
		from, to := rapid.IntRange(0, size).Draw(t, "from"), rapid.IntRange(0, size).Draw(t, "to")
		total := int64(0)
		for i := from; i < to; i++ {
			if inA[i] {
				total++
			}
		}
		require.Equal(t, total, a.overlap(int64(from), int64(to)))
	})
}
