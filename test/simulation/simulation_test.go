package simulation

import (
	"flag"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

var (
	seeds = flag.Int("seeds", 300, "how many seeds to run")
	first = flag.Uint64("first", 1, "the first of them")
	only  = flag.Uint64("seed", 0, "the only one to run; with -v its story is told")
	tries = flag.Int("tries", 1, "how often to run each seed")
	limit = flag.Int("limit", 3, "after how many failed seeds to stop")
)

func TestMain(m *testing.M) {
	flag.Parse()
	redis.SetLogger(&logging.VoidLogger{})
	os.Exit(m.Run())
}

// quietly runs f on one processor and without garbage collection, which would
// change the order of goroutines.
func quietly(f func()) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	f()
}

// TestSeeds simulates one seed after the other.
func TestSeeds(t *testing.T) {
	from, to := *first, *first+uint64(*seeds)
	if *only != 0 {
		from, to = *only, *only+1
	}
	runs, failed, lines, began := 0, 0, 0, time.Now()
	for seed := from; seed < to && failed < *limit; seed++ {
		var s *story
		for range *tries {
			quietly(func() { s = simulate(t, seed) })
			runs++
			lines += len(s.lines)
			if runs%50 == 0 {
				runtime.GC()
			}
			if len(s.violations) > 0 {
				failed++
				t.Errorf("seed %d:\n%s\n%s\nreplay: %s", seed, s, s.problems(), replay(seed))
				break
			}
		}
		if *only != 0 && !t.Failed() {
			t.Logf("\n%s", s)
		}
	}
	took := time.Since(began)
	t.Logf("%d runs, %d failed, %.0f a second, %d lines a story", runs, failed, float64(runs)/took.Seconds(), lines/runs)
}

// A seed has one story, but for what the library leaves to chance: the jitter of
// its back-off after failures, and the order in which it goes through the lines
// of several keys. The race detector shuffles goroutines.
func TestSameSeedSameStory(t *testing.T) {
	same, n := 0, min(*seeds, 60)
	for seed := *first; seed < *first+uint64(n); seed++ {
		var a, b *story
		quietly(func() { a, b = simulate(t, seed), simulate(t, seed) })
		switch {
		case a.hash() == b.hash():
			same++
		case a.simple && !raceDetector:
			t.Errorf("seed %d had two stories, %x:\n%s\nand %x:\n%s", seed, a.hash(), a, b.hash(), b)
		}
	}
	t.Logf("%d of %d seeds have had the same story twice", same, n)
}
