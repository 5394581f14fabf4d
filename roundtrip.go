package redislock

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// How long a server is waited for follows from how long it takes to answer, as far
// as that is known, and not from the client's time-outs, which may be long, or none.

// A roundTrip is the shortest time in which a server has answered of late: of all
// that an answer takes, what the way takes. The mean would tell of the load.
type roundTrip struct {
	began    time.Time     // of the window
	shortest time.Duration // in the window; 0: not known
	before   time.Duration // in the window before it
}

const roundTripWindow = 10 * time.Second

// observe takes in how long an answer took.
func (r *roundTrip) observe(took time.Duration, now time.Time) {
	took = max(took, 1) // fake time may stand still
	if now.Sub(r.began) >= roundTripWindow {
		r.began, r.before, r.shortest = now, r.shortest, took
	}
	r.shortest = min(r.shortest, took)
}

// estimate returns how long a round trip takes, 0 if that is not known.
func (r *roundTrip) estimate() time.Duration {
	if r.before == 0 {
		return r.shortest
	}
	return min(r.shortest, r.before)
}

// reached tells whether the server has ever answered.
func (s *sender) reached() bool { return s.roundTrip.estimate() > 0 }

// stretch returns a time limit that was made for a short way, for the way there is.
func (r *roundTrip) stretch(limit time.Duration) time.Duration {
	return min(max(limit, 4*r.estimate()), max(limit, maxPatient))
}

const (
	// stallAfter is when a batch no longer counts, unless the way is long: its
	// connection may be dead, and what comes after it is sent over another one.
	stallAfter = 250 * time.Millisecond

	// firstStall is the same while nobody knows how long the way is.
	firstStall = time.Second

	// connectAfter is when a batch no longer counts that still waits for a connection. A
	// new one takes five round trips.
	connectAfter = time.Second

	// firstConnect is the same while nobody knows how long the way is.
	firstConnect = 5 * time.Second

	// maxPatient bounds how long these become where the way is long.
	maxPatient = 5 * time.Second

	// maxAnswerTime bounds how long a connection is given to answer, where the client
	// would wait for longer or for ever: it keeps a place, and an application's
	// connection.
	maxAnswerTime = 5 * time.Second
)

// dueBy returns when a batch should have been answered, counted from when it was
// written, as making a connection takes several round trips. Redis may take its time
// over many requests.
func (s *sender) dueBy(b *batch) time.Time {
	known := s.roundTrip.estimate() > 0
	written := time.Duration(b.written.Load())
	switch {
	case written == 0 && known:
		return b.began.Add(max(connectAfter, 2*s.roundTrip.stretch(stallAfter)))
	case written == 0:
		return b.began.Add(firstConnect)
	case known:
		written += s.roundTrip.stretch(stallAfter)
	default:
		written += min(max(firstStall, 4*written), maxPatient) // a connection was made meanwhile
	}
	return b.began.Add(written + time.Duration(len(b.ops))*100*time.Microsecond)
}

// noted is the first command of a batch: the client asks for its arguments as it
// writes them, so they tell when a connection was had.
type noted struct {
	command
	began   time.Time
	written *atomic.Int64 // since began
}

func (c noted) Args() []any {
	c.written.Store(max(1, int64(time.Since(c.began))))
	return c.command.Args()
}

// patient returns the client with read and write time-outs of maxAnswerTime where its
// own are longer, or none. Where Redis may take the time wait before it answers, that
// is added, as far as the client's ReadTimeout allows. It shares connections and hooks with the client. Of other
// implementations than go-redis's the time-outs cannot be changed, nor are they
// known; the sender gives up on them, and forgets them as they come back.
func patient(client redis.UniversalClient, most, wait time.Duration) redis.UniversalClient {
	c, ok := client.(*redis.Client)
	if !ok {
		return client
	}
	o, limit := c.Options(), most
	for _, t := range []time.Duration{o.ReadTimeout, o.WriteTimeout} {
		if t > 0 {
			limit = min(limit, t)
		}
	}
	if o.ReadTimeout > 0 && o.ReadTimeout <= most && o.WriteTimeout > 0 && o.WriteTimeout <= most {
		return client
	}
	if wait > 0 && o.ReadTimeout > 0 {
		limit = max(limit, min(wait+most, o.ReadTimeout))
	} else if wait > 0 {
		limit = wait + most
	}
	return c.WithTimeout(limit)
}

var _ redis.Cmder = noted{}

// joins calls f in a goroutine of its own and tells whether it has returned by then.
func joins(ctx context.Context, f func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}
