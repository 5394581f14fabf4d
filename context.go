package redislock

import (
	"context"
	"time"
)

type contextKey struct{}

// holding is what a context says of locks: the one that it is of, and those of the
// contexts that it was made from.
type holding struct {
	lock  *Lock
	outer *holding
}

func holdingOf(ctx context.Context) *holding {
	h, _ := ctx.Value(contextKey{}).(*holding)
	return h
}

// FromContext returns the lock that ctx is of, say for its fencing token: that which
// Do holds for the function that was given ctx, or whose Context method made it; of
// several the innermost. It is nil if ctx is of no lock. Whether the lock is held still,
// the lock itself tells.
func FromContext(ctx context.Context) *Lock {
	if h := holdingOf(ctx); h != nil {
		return h.lock
	}
	return nil
}

// Context returns a context that ends when the lock is no longer held, as Done tells
// it, with Err as its context.Cause; or when parent ends; or when cancel is called,
// which is to be done in any case, as it lets go of what the lock remembers of the
// context. FromContext finds the lock in it. That of a lock that still waits goes on
// until it has failed or was held. It returns at once.
func (l *Lock) Context(parent context.Context) (ctx context.Context, cancel context.CancelFunc) {
	ctx, end := context.WithCancelCause(context.WithValue(parent, contextKey{}, &holding{l, holdingOf(parent)}))
	if l.isNone() {
		end(noLock)
		return ctx, func() {}
	}
	m := l.manager
	m.mu.Lock()
	defer m.exit()
	l.checkLease(time.Now())
	if l.ended() {
		end(l.err)
		return ctx, func() {}
	}
	w := &watcher{lock: l, end: end}
	w.add()
	return ctx, func() {
		m.mu.Lock()
		w.remove()
		m.mu.Unlock()
		end(nil)
	}
}

// A watcher is one context that ends with the lock. Those of a lock are in a list,
// so that it takes no longer to leave it where there are many. Guarded by the
// manager's mutex.
type watcher struct {
	lock       *Lock // nil: not in the list
	end        context.CancelCauseFunc
	prev, next *watcher
}

func (w *watcher) add() {
	if w.next = w.lock.watchers; w.next != nil {
		w.next.prev = w
	}
	w.lock.watchers = w
}

func (w *watcher) remove() {
	if w.lock == nil {
		return
	}
	if w.next != nil {
		w.next.prev = w.prev
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		w.lock.watchers = w.next
	}
	w.lock, w.prev, w.next = nil, nil, nil
}

// reentrant tells that one of the locks that a context is of, in h, is held of this
// very key: whoever waits for the key with that context waits for himself. The caller
// holds m.mu.
func (m *LockManager) reentrant(key string, h *holding, now time.Time) bool {
	for ; h != nil; h = h.outer {
		l := h.lock
		if l.isNone() || l.manager != m || l.key != key {
			continue
		}
		if l.checkLease(now); l.state == held {
			return true
		}
	}
	return false
}
