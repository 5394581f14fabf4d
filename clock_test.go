package redislock

import (
	"errors"
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

// What was known of a server's clock says nothing about that of the server which the
// next connection leads to, after a failover.
func TestClockIsForgottenWithTheConnection(t *testing.T) {
	m, l := newStill(t, "key")
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	s, sl := m.shards[0], l.line.slot
	s.events.slots[sl.channel] = sl
	s.clock.observe(now, now, time.Hour)
	l.asOf, l.epoch = time.Hour, sl.trust.epoch
	s.events.interrupted(errors.New("cut"), true)
	require.False(t, s.clock.known())
	require.False(t, sl.ready)

	m.mu.Unlock()
	require.NoError(t, s.events.subscribed(sl.channel))
	m.mu.Lock()
	require.True(t, sl.ready)
	require.False(t, l.isOf(sl), "compared with the old clock")
}
