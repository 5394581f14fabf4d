package redislock

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"
)

// KeyspaceMode says what a manager does about Redis keyspace notifications.
// They make it prompt when a key that a foreign client held is deleted, renamed
// or evicted; releases by this library and leases that run out need none.
type KeyspaceMode int

const (
	// KeyspaceAuto subscribes to the events of the keys that are waited for.
	// When a line first stands still it switches on, by CONFIG SET, the flags that
	// it needs ("Kgxe") beside those that are on, and logs that at Info, with the
	// flags before and after. Where CONFIG is forbidden, or the flags cannot be
	// merged without a loss, it says so once in the log and works without.
	// This is the default.
	KeyspaceAuto KeyspaceMode = iota

	// KeyspaceRequired is KeyspaceAuto, but NewLockManager fails unless it
	// can read in Redis that the flags are on, or switch them on, and can tell the
	// number of the database; after 5 s at most, where Redis does not answer.
	KeyspaceRequired

	// KeyspaceOff neither subscribes to events nor touches the configuration.
	KeyspaceOff

	// KeyspacePassive subscribes to events where they are on, and never writes the
	// configuration.
	KeyspacePassive
)

// String returns the name of the constant.
func (mode KeyspaceMode) String() string {
	switch mode {
	case KeyspaceAuto:
		return "KeyspaceAuto"
	case KeyspaceRequired:
		return "KeyspaceRequired"
	case KeyspaceOff:
		return "KeyspaceOff"
	case KeyspacePassive:
		return "KeyspacePassive"
	}
	return fmt.Sprintf("KeyspaceMode(%d)", int(mode))
}

// Option configures a LockManager.
type Option func(*options) error

type options struct {
	prefix   string
	log      *slog.Logger
	maxQueue int
	keyspace KeyspaceMode
	guard    time.Duration // that nodes of a quorum have to have been up

	replicas       int // that have to confirm an acquisition
	replicaTimeout time.Duration
}

// WithPrefix puts prefix in front of every key that callers name. It is part of
// the key in Redis, so that lockers in other languages have to use it too.
// Default: none.
func WithPrefix(prefix string) Option {
	return func(o *options) error {
		if strings.HasPrefix(prefix, reserved) {
			return invalid("prefix %q: names that begin with %q belong to the library", prefix, reserved)
		}
		o.prefix = prefix
		return nil
	}
}

// WithLogger sets where the manager logs. Owner values are never logged in
// full. Default: nowhere.
func WithLogger(log *slog.Logger) Option {
	return func(o *options) error {
		if log == nil {
			return invalid("logger is nil")
		}
		o.log = log
		return nil
	}
}

// WithMaxQueue limits how many callers of this manager may wait for one key;
// the next one gets ErrQueueFull. Default: 0, no limit.
func WithMaxQueue(n int) Option {
	return func(o *options) error {
		if n < 0 {
			return invalid("max queue is %d: want 0 (no limit) or more", n)
		}
		o.maxQueue = n
		return nil
	}
}

// WithKeyspaceEvents sets what the manager does about keyspace notifications.
// Default: KeyspaceAuto.
func WithKeyspaceEvents(mode KeyspaceMode) Option {
	return func(o *options) error {
		if mode < KeyspaceAuto || mode > KeyspacePassive {
			return invalid("keyspace events mode is %v: want KeyspaceAuto, KeyspaceRequired, KeyspaceOff or KeyspacePassive", mode)
		}
		o.keyspace = mode
		return nil
	}
}

// WithRestartGuard keeps nodes of a quorum from voting until they have been up
// for maxTTL, which is to be the longest TTL that anybody uses on them; locks of
// this manager with a longer one are refused. A node that comes back without its
// keys would else help a second holder to a majority. It asks the servers for
// their uptime, so none votes for the first maxTTL after its own start either.
//
// The same can be had of the servers: with appendonly yes and appendfsync always
// they come back with their keys; or have them started that much later.
// For NewQuorumManager only. Default: no guard.
func WithRestartGuard(maxTTL time.Duration) Option {
	return func(o *options) error {
		if maxTTL < time.Millisecond || maxTTL > maxGuard {
			return invalid("restart guard is %v: want 1ms to %v", maxTTL, maxGuard)
		}
		o.guard = maxTTL
		return nil
	}
}

// maxGuard is a time for which nobody would keep a node from voting.
const maxGuard = 100 * 24 * time.Hour

// LockOption configures one acquisition.
type LockOption func(*lockOptions) error

type lockOptions struct {
	renew   bool
	maxHold time.Duration
	value   string
	wait    time.Duration // 0: for as long as the context lasts
}

// UntilUnlock is for WithAutoRenew: there is no longest hold.
const UntilUnlock time.Duration = math.MaxInt64

// WithAutoRenew prolongs the lease by its TTL, every third of a TTL, for as
// long as the lock is held but for no longer than maxHold, counted from the
// acquisition: a process that is stuck does not hold for ever. maxHold may not
// be below the TTL; UntilUnlock, as all above 100 years, is no limit. Default: no
// renewal, the lock lasts for one TTL.
func WithAutoRenew(maxHold time.Duration) LockOption {
	return func(o *lockOptions) error {
		if maxHold <= 0 {
			return invalid("auto-renew: max hold is %v: want more than 0", maxHold)
		}
		o.renew, o.maxHold = true, maxHold
		return nil
	}
}

// WithValue sets the owner value that Redis stores under the key, for the sake
// of other programs that look at it. Whoever knows the value of a lock can release it.
//
// It should be different for every acquisition. Locks of several managers that have the
// same value exclude each other all the same: a lock counts a value that it finds under
// the key as its own only if it may have put it there itself. Where that is in doubt, as
// when the message of a grant was lost, the key stays until its lease ends. A request
// with such a value is not sent again over another connection while the first is
// silent. But a release that the network delays until after the lease is over releases
// the next lock of that value. In one manager two locks on one key may not have the same value at a time.
// Default: a random UUID.
func WithValue(value string) LockOption {
	return func(o *lockOptions) error {
		if value == "" {
			return invalid("owner value is empty")
		}
		o.value = value
		return nil
	}
}

// WithWaitTimeout has a call give up if it is not its turn within d, more than 0: it
// leaves the line, and fails with ErrNotAcquired, not with context.DeadlineExceeded.
// Unlike a deadline of the context it bounds the wait alone: the function that Do runs
// keeps the context as it is. For Lock, Acquire and Do; calls that do not wait refuse
// it. Default: the wait lasts for as long as the context.
func WithWaitTimeout(d time.Duration) LockOption {
	return func(o *lockOptions) error {
		if d <= 0 {
			return invalid("wait timeout is %v: want more than 0", d)
		}
		o.wait = d
		return nil
	}
}

// maxTTL keeps every sum of a time and a TTL far from overflow.
const maxTTL = 100 * 365 * 24 * time.Hour

// parse checks everything that a caller says of one acquisition, and sets o.
func (m *LockManager) parse(ctx context.Context, verb, name string, ttl time.Duration, opts []LockOption, o *lockOptions) error {
	switch {
	case ctx == nil:
		return invalid("context is nil")
	case name == "":
		return invalid("key is empty")
	case strings.HasPrefix(m.opts.prefix+name, reserved):
		return invalid("keys that begin with %q belong to the library", reserved)
	}
	if err := m.checkTTL(ttl); err != nil {
		return err
	}
	for _, opt := range opts {
		if opt == nil {
			return invalid("a lock option is nil")
		}
		if err := opt(o); err != nil {
			return err
		}
	}
	if o.renew && o.maxHold < ttl {
		return invalid("auto-renew: max hold %v is below the ttl %v", o.maxHold, ttl)
	}
	if o.wait > 0 && tries(verb) {
		return invalid("WithWaitTimeout: %s does not wait", verb)
	}
	return nil
}

func (m *LockManager) checkTTL(ttl time.Duration) error {
	switch {
	case ttl < time.Millisecond:
		return invalid("ttl is %v: want 1ms or more", ttl)
	case ttl > maxTTL:
		return invalid("ttl is %v: want 100 years or less", ttl)
	case m.quorum != nil && ttl < minQuorumTTL:
		return invalid("ttl is %v: want %v or more of a quorum, which takes %v off for drift", ttl, minQuorumTTL, quorumDrift)
	case m.opts.guard > 0 && ttl > m.opts.guard:
		return invalid("ttl is %v: the restart guard is for %v or less", ttl, m.opts.guard)
	}
	return nil
}
