package redislock

import (
	"context"
	"errors"
	"fmt"
)

// The sentinels, for errors.Is.
var (
	// ErrNotAcquired: TryLock found the key taken, or a lock was granted but
	// its lease had run out before the grant arrived.
	ErrNotAcquired = errors.New("lock not acquired")

	// ErrNotHeld: Unlock or Extend of a lock that is not held: never acquired,
	// released before, or lost.
	ErrNotHeld = errors.New("lock not held")

	// ErrLost: the lock was held and is no longer, without having been
	// released: its lease ran out, or somebody removed the key.
	ErrLost = errors.New("lock lost")

	// ErrReleased: Unlock was called. Lock.Err reports it after a release, Wait
	// when the lock left the line before its turn.
	ErrReleased = errors.New("lock released")

	// ErrClosed: the manager was closed.
	ErrClosed = errors.New("lock manager closed")

	// ErrQueueFull: as many callers of this manager as WithMaxQueue allows wait
	// for the key already.
	ErrQueueFull = errors.New("lock queue full")

	// ErrInvalidArgument: an argument or an option cannot be used. The message
	// names it. Nothing was sent.
	ErrInvalidArgument = errors.New("invalid argument")
)

// The causes that come wrapped in others.
var (
	errLeaseEnded = errors.New("the lease ran out")
	errMaxHold    = errors.New("the lease ran out: auto-renewal ended after the longest hold allowed")
	errNoAnswer   = errors.New("no answer from Redis")
	errLate       = errors.New("the lease had run out when the grant arrived")
	errCluster    = errors.New("the server is part of a Redis Cluster: NewLockManager needs a redis.ClusterClient")
	errGhost      = errors.New("an earlier release of the same owner value may still arrive")
	errLateVote   = errors.New("voted after the majority, for a higher token")
	errTakenAway  = errors.New("the key is gone or has another owner")
)

// Error is the type of the errors that this package returns.
type Error struct {
	Op  string // "lock", "trylock", "unlock", "extend", "do", "new" or "close"
	Key string // the key in Redis, prefix included; empty where none is concerned
	Err error
}

func (e *Error) Error() string {
	if e.Key == "" {
		return "redislock: " + e.Op + ": " + e.Err.Error()
	}
	return fmt.Sprintf("redislock: %s %q: %v", e.Op, e.Key, e.Err)
}

// Unwrap returns what errors.Is and errors.As look into.
func (e *Error) Unwrap() error { return e.Err }

// causes is one error with several reasons: it reads as the first, and every
// one of them can be found with errors.Is and errors.As.
type causes []error

func (c causes) Error() string {
	text := c[0].Error()
	for _, err := range c[1:] {
		text += ": " + err.Error()
	}
	return text
}

func (c causes) Unwrap() []error { return c }

// contextError says why ctx ended: context.Canceled or DeadlineExceeded, the
// cause where one was set, and the last failure to reach Redis, if any.
func contextError(ctx context.Context, last error) error {
	err := causes{ctx.Err()}
	if cause := context.Cause(ctx); cause != ctx.Err() {
		err = append(err, cause)
	}
	if last != nil {
		err = append(err, last)
	}
	return err
}

func invalid(format string, args ...any) error {
	return causes{ErrInvalidArgument, fmt.Errorf(format, args...)}
}
