package simulation

import (
	"flag"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

var (
	seeds = flag.Int("seeds", 300, "how many seeds to run")
	first = flag.Uint64("first", 1, "the first of them")
	only  = flag.Uint64("seed", 0, "the only one to run; with -v its story is told")
)

// quietly runs f on one processor and without garbage collection, which would
// change the order of goroutines.
func quietly(f func()) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	f()
}

// TestSeeds simulates one seed after the other.
func TestMain(m *testing.M) {
	flag.Parse()
	redis.SetLogger(&logging.VoidLogger{})
	os.Exit(m.Run())
}

func TestSeeds(t *testing.T) {
	from, to := *first, *first+uint64(*seeds)
	if *only != 0 {
		from, to = *only, *only+1
	}
	failed, lines, began := 0, 0, time.Now()
	for seed := from; seed < to; seed++ {
		var s *story
		quietly(func() { s = Run(t, seed) })
		lines += len(s.lines)
		if len(s.violations) > 0 {
			failed++
			t.Errorf("seed %d: %s\nreplay: %s", seed, s.problems(), replay(seed))
			if failed == 1 || *only != 0 {
				t.Logf("the story of seed %d:\n%s", seed, s)
			}
		} else if to == from+1 {
			t.Logf("%s", s)
		}
		if seed%50 == 0 {
			runtime.GC()
		}
	}
	took := time.Since(began)
	t.Logf("%d seeds, %d failed, %.0f a second, %d lines a story", to-from, failed, float64(to-from)/took.Seconds(), lines/int(to-from))
}

// TestSameSeed runs seeds twice and compares their stories.
func TestSameSeed(t *testing.T) {
	noisy, same, n := 0, 0, min(*seeds, 100)
	for seed := *first; seed < *first+uint64(n); seed++ {
		var a, b *story
		quietly(func() { a, b = Run(t, seed), Run(t, seed) })
		if a.troubled {
			noisy++
		}
		if a.hash() == b.hash() {
			same++
		} else {
			t.Log(seed, a.troubled, firstDifference(a.String(), b.String()))
		}
	}
	t.Logf("%d of %d seeds have the same story twice, %d troubled", same, n, noisy)
}

func firstDifference(a, b string) string {
	al, bl := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(al), len(bl)) {
		if al[i] != bl[i] {
			return "\n" + al[max(0, i-1)] + "\n" + al[i] + "\n" + bl[i]
		}
	}
	return "length"
}
