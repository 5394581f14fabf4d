package redislock

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// The sentinels, for errors.Is.
var (
	// ErrNotAcquired: TryLock found the key taken, or it was not a waiter's turn
	// within WithWaitTimeout, or a lock was granted but its lease had run out
	// before the grant arrived.
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

	// ErrReentrant: the context of the call is of a lock that holds this very key, as
	// the one that Do gives its function: the call would wait for its own caller. One
	// that is to wait all the same needs a context that is made from another.
	ErrReentrant = errors.New("the context's own lock holds the key: to wait for it, use a context that is not of that lock")

	// ErrClosed: the manager was closed, or is being shut down.
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
	errReplica    = errors.New("the address leads to a replica, which has not become a master")
	errNoWait     = errors.New("replicas cannot be asked: Redis refuses WAIT")
	errGhost      = errors.New("an earlier release of the same owner value may still arrive")
	errLateVote   = errors.New("voted after the majority, for a higher token")
	errGoesOn     = errors.New("not confirmed yet: the manager goes on until the lease ends")
	errTakenAway  = errors.New("the key is gone or has another owner")
)

// Error is the type of the errors that this package returns, and of those that
// contexts of Do and Lock.Context end with. It reads as one line.
type Error struct {
	// Op is the call: "lock", "acquire", "trylock", "do", "trydo", "unlock", "release",
	// "extend", "new", "close" or "shutdown". What Wait and Err tell of a lock has that
	// by which it was to be acquired.
	Op  string
	Key string // the key in Redis, prefix included; empty where none is concerned
	Err error
}

// What Error.Op may be.
const (
	callLock     = "lock"
	callAcquire  = "acquire"
	callTryLock  = "trylock"
	callDo       = "do"
	callTryDo    = "trydo"
	callUnlock   = "unlock"
	callRelease  = "release"
	callExtend   = "extend"
	callNew      = "new"
	callClose    = "close"
	callShutdown = "shutdown"
)

// tries tells the calls that never wait for their turn.
func tries(call string) bool { return call == callTryLock || call == callTryDo }

func (e *Error) Error() string {
	reason := strings.ReplaceAll(e.Err.Error(), "\n", "; ") // of others' errors
	if e.Key == "" {
		return "redislock: " + e.Op + ": " + reason
	}
	return fmt.Sprintf("redislock: %s %q: %s", e.Op, e.Key, reason)
}

// Unwrap returns what errors.Is and errors.As look into.
func (e *Error) Unwrap() error { return e.Err }

// causes returns one error with several reasons, in one line: every one of them
// can be found with errors.Is and errors.As.
func causes(reasons ...error) error { return &chain{reasons} }

// A chain is used by its pointer alone: errors are compared, and to compare
// slices is a panic.
type chain struct{ reasons []error }

func (c *chain) Error() string {
	text := c.reasons[0].Error()
	for _, err := range c.reasons[1:] {
		text += ": " + err.Error()
	}
	return text
}

func (c *chain) Unwrap() []error { return c.reasons }

// contextError says why ctx ended: context.Canceled or DeadlineExceeded, the
// cause where one was set, and the last failure to reach Redis, if any.
func contextError(ctx context.Context, last error) error {
	reasons := []error{ctx.Err()}
	if cause := context.Cause(ctx); cause != ctx.Err() {
		reasons = append(reasons, cause)
	}
	if last != nil {
		reasons = append(reasons, last)
	}
	return causes(reasons...)
}

func invalid(format string, args ...any) error {
	return causes(ErrInvalidArgument, fmt.Errorf(format, args...))
}
