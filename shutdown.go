package redislock

import (
	"context"
	"fmt"
)

// Shutdown ends the manager without taking a lock away from anybody: who waits gets
// ErrClosed at once, as do new calls; who holds a lock goes on, with its renewals,
// until he releases it or loses it, or until ctx ends. Then it calls Close. Services
// want it when they are told to end, once they take in no more work:
//
//	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
//	defer cancel()
//	err := manager.Shutdown(ctx)
//
// It returns nil if all locks were released or lost in time and Close returned nil. If
// ctx ends first, it returns why, together with how many locks are still held: they
// are no longer renewed, can still be unlocked, and end with their leases. It takes as
// long as the locks are held, but no longer than until ctx ends, and as long as Close
// does. A function that Do runs, or whoever else holds a lock, must not wait for it.
func (m *LockManager) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return &Error{callShutdown, "", invalid("context is nil")}
	}
	m.mu.Lock()
	m.stopping = true
	m.turnAway()
	released := m.holds.released()
	m.exit()
	select {
	case <-released:
	case <-m.closeDone:
	case <-ctx.Done():
	}
	m.mu.Lock()
	left := len(m.holds.due)
	m.mu.Unlock()
	var reasons []error
	if left > 0 && ctx.Err() != nil {
		reasons = append(reasons, contextError(ctx, fmt.Errorf("locks that are still held: %d", left)))
	}
	if err := m.close(); err != nil {
		reasons = append(reasons, err)
	}
	if len(reasons) > 0 {
		return &Error{callShutdown, "", causes(reasons...)}
	}
	return nil
}

// released returns a channel that is closed once no lock is held. The caller holds the
// manager's mutex.
func (h *holds) released() <-chan struct{} {
	if len(h.due) == 0 {
		return noLockEnded
	}
	if h.empty == nil {
		h.empty = make(chan struct{})
	}
	return h.empty
}
