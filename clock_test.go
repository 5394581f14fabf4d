package redislock

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Whenever within the round trip the server read its clock, and though clocks
// differ in rate: a time of the server's is never carried to one too late.
func TestClockErrsOnTheSafeSide(t *testing.T) {
	const roundTrip, since = 400 * time.Millisecond, 9 * time.Second
	sent := time.Now()
	for _, rate := range []float64{0.9995, 1, 1.0005} { // of the server's clock
		for _, way := range []time.Duration{0, roundTrip / 2, roundTrip} {
			const epoch = 1795315007 * time.Second
			read := sent.Add(way)
			server := func(at time.Time) time.Duration {
				return epoch + time.Duration(float64(at.Sub(read))*rate)
			}
			var c clock
			c.observe(sent, sent.Add(roundTrip), epoch)
			for _, at := range []time.Time{read.Add(-since), read, read.Add(since)} {
				local := c.local(server(at))
				require.False(t, local.After(at), "rate %v, way %v", rate, way)
				require.WithinDuration(t, at, local, roundTrip+since/500)
			}
		}
	}
}
