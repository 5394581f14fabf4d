package redislock

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What Redis refuses for ever is asked for ever more rarely; what it refuses after a
// long time of peace, soon again.
func TestRefusedForEverIsAskedForRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var r refusals
		var asked []time.Duration // how long each time is after the one before
		var last time.Time
		refuse := true
		var ask func()
		ask = func() {
			mu.Lock()
			defer mu.Unlock()
			now := time.Now()
			asked, last = append(asked, now.Sub(last)), now
			r.timer = nil
			if refuse {
				r.add(now, ask)
				r.add(now, ask) // of another key: it is asked for along with the first
			}
		}
		during := func(d time.Duration, refused bool) []time.Duration {
			mu.Lock()
			asked, last, refuse = nil, time.Now(), refused
			mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return asked
		}
		ask()
		first := during(time.Hour, true)
		require.Less(t, len(first), 3600/30+5)
		require.Equal(t, minAskAgain, first[0])
		require.Equal(t, maxAskAgain, first[len(first)-1])

		require.Len(t, during(time.Hour, false), 1)
		refuse = true
		ask()
		require.Equal(t, minAskAgain, during(time.Minute, true)[0])
		r.end()
	})
}
