package redislock

import "time"

// drift is what a lease of the given length loses to clocks that do not run at
// the same rate: 1 %, the factor of the distlock page.
func drift(lease time.Duration) time.Duration { return lease / 100 }

// drift is what a lease of this manager loses. Of a quorum it is 2 ms more, as
// the distlock page has it.
func (m *LockManager) drift(lease time.Duration) time.Duration {
	if m.quorum != nil {
		return drift(lease) + quorumDrift
	}
	return drift(lease)
}

// skew is the share by which two clocks are taken to differ in rate while
// times are carried from one to the other: 0.1 %, twice what NTP slews at most.
func skew(d time.Duration) time.Duration { return d.Abs() / 1000 }

// A clock relates the server's wall clock to the monotonic clock of this
// process: the server read `server` at some moment between sent and received.
// The zero clock knows nothing yet.
type clock struct {
	sent, received time.Time
	server         time.Duration // since the Unix epoch
}

// clockAge is how old a reading may grow before any newer one is better.
const clockAge = 10 * time.Second

// clockPrecision is how far apart readings of one clock may be beside that.
const clockPrecision = time.Millisecond

// observe takes in a reading, if it is better than the one it has: taken over a
// shorter round trip, or much newer.
func (c *clock) observe(sent, received time.Time, server time.Duration) {
	if !c.known() || received.Sub(sent) <= c.received.Sub(c.sent) || received.Sub(c.received) > clockAge {
		*c = clock{sent, received, server}
	}
}

// contradicts reports whether a reading cannot be of the clock that is known: another
// server answers now, or its clock was set.
func (c *clock) contradicts(sent, received time.Time, server time.Duration) bool {
	if !c.known() {
		return false
	}
	shortest, longest := sent.Sub(c.received), received.Sub(c.sent)
	passed := server - c.server
	return passed < shortest-skew(shortest)-clockPrecision || passed > longest+skew(longest)+clockPrecision
}

func (c *clock) known() bool { return c.server != 0 }

// local returns when, on this process's clock, the server's clock showed t, or
// a moment earlier.
func (c *clock) local(t time.Duration) time.Time {
	d := t - c.server
	return c.sent.Add(d - skew(d))
}
