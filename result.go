package redislock

import "time"

// Result is the outcome of an acquisition.
type Result struct {
	// Err is nil if the lock is held. Else it is an *Error around the reason:
	// the context's error, ErrClosed, ErrQueueFull, ErrReleased (Unlock was
	// called first), ErrInvalidArgument, or what Redis or the network said.
	Err error

	// Token is the fencing token, 0 without the lock. See Lock.Token.
	Token int64

	// ValidUntil is when the lease ended as it was granted. See Lock.ValidUntil.
	ValidUntil time.Time

	// Waited is the time from the call of Lock to the outcome.
	Waited time.Duration
}

// OK tells whether the lock was acquired.
func (r Result) OK() bool { return r.Err == nil }

// outcome is a Result that is told once and read any number of times: it is
// sent over a channel of one, and whoever takes it out puts it back.
type outcome chan Result

func newOutcome() outcome { return make(outcome, 1) }

// tell is called once.
func (o outcome) tell(r Result) { o <- r }

func (o outcome) read() Result {
	r := <-o
	o <- r
	return r
}
