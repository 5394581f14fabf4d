package redislock

import (
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// WithReplicas makes an acquisition count only once n replicas have it. One that
// they have not confirmed within timeout (1 ms or more, in whole milliseconds, and
// less than the client's ReadTimeout) is given back, and fails with ErrNotAcquired
// and how many there were. Default: replicas are not waited for.
//
// It makes it rarer that a failover forgets a lock that is held, and does not rule
// it out: the replica that is promoted may be another one. Every acquisition takes
// longer by the way to the replicas and back, and a handover by a round trip of
// the new holder's. Source of the idea: the WAIT command of Redis.
func WithReplicas(n int, timeout time.Duration) Option {
	return func(o *options) error {
		if n < 1 {
			return invalid("replicas: %d: want 1 or more", n)
		}
		if timeout < time.Millisecond {
			return invalid("replicas: timeout is %v: want 1ms or more", timeout)
		}
		o.replicas, o.replicaTimeout = n, timeout.Truncate(time.Millisecond)
		return nil
	}
}

// checkReplicas refuses a timeout at which the client would not wait for the
// answer.
func (m *LockManager) checkReplicas() error {
	var read time.Duration
	switch c := m.client.(type) {
	case interface{ Options() *redis.Options }:
		read = c.Options().ReadTimeout
	case interface{ Options() *redis.ClusterOptions }:
		read = c.Options().ReadTimeout
	}
	if m.opts.replicas > 0 && read > 0 && m.opts.replicaTimeout >= read {
		return invalid("replicas: timeout %v is not below the client's ReadTimeout %v", m.opts.replicaTimeout, read)
	}
	return nil
}

// About replicas, in place of their number.
const (
	notAsked   = -1
	notAllowed = -2 // Redis refuses WAIT, for good
)

// askReplicas ends the batch with WAIT, if it acquires anything. WAIT counts what
// was written over its own connection, so the batch must not be spread over
// several, as those that have to follow redirections may be.
func (s *shard) askReplicas(b *batch) {
	o := &s.m.opts
	if o.replicas == 0 || s.node == nil || b.follow {
		return
	}
	if slices.ContainsFunc(b.ops, (*op).acquires) {
		b.wait = b.add(append(b.args, "wait", o.replicas, o.replicaTimeout.Milliseconds()))
	}
}

// waitTime returns how long Redis may take over the WAIT of a batch.
func (s *shard) waitTime(b *batch) time.Duration {
	if b.wait.Cmd == nil {
		return 0
	}
	return s.m.opts.replicaTimeout
}

// replicas returns how many replicas have what the batch wrote, notAsked or notAllowed.
func (b *batch) replicas() int {
	if b.wait.Cmd == nil {
		return notAsked
	}
	switch classify(b.wait.Err()) {
	case success:
		if n, ok := asInt(b.wait.Val()); ok {
			return int(n)
		}
		return notAllowed
	case empty, final:
		return notAllowed
	}
	return notAsked
}

// replicated tells whether enough replicas have an acquisition that was answered
// just now. If they were not asked, they are; if they are too few, it fails.
func (m *LockManager) replicated(o *op) bool {
	l := o.lock
	switch {
	case m.opts.replicas == 0 || l.state != waiting || o.replicas >= m.opts.replicas:
		return true
	case o.replicas == notAsked:
		m.confirm(l)
	case o.replicas == notAllowed:
		m.abandon(l, causes(ErrNotAcquired, errNoWait))
	default:
		m.abandon(l, causes(ErrNotAcquired, fmt.Errorf("%d of %d replicas confirmed it within %v",
			o.replicas, m.opts.replicas, m.opts.replicaTimeout)))
	}
	return false
}
