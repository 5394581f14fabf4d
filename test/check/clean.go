package check

import "github.com/redislock/redislock/test/history"

// fence is the one key of the library that outlives its locks, for a day.
const fence = "redislock:fence"

// checkClean: what is left in Redis goes by itself, and no goroutine is left in
// the processes.
func checkClean(r *run) {
	for _, left := range r.Leftover {
		r.examined("G9", "keys left", 1)
		if left.TTL < 0 {
			what := "would stay for ever"
			if left.Key == fence {
				what = "(the counter of the tokens) would stay for ever"
			}
			r.violation("G9", "keys left", left.Key, nil, "%s", what)
		}
	}
	for i := range r.Events {
		e := &r.Events[i]
		if e.Kind != history.Closed {
			continue
		}
		r.examined("G9", "goroutines left", 1)
		if e.Goroutines != 0 {
			r.violation("G9", "goroutines left", "", nil, "%d goroutines of process %s outlived Close", e.Goroutines, e.Process)
		}
	}
}
