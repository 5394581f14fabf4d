package redislock

import (
	"context"
	"time"
)

// Unlock releases the lock to the next in line. It removes the key only if it
// still holds this lock's value. On a lock that is still waiting it leaves the
// line, and Wait then returns ErrReleased.
//
// It is right to defer Unlock straight after Lock: it returns ErrNotHeld, and
// does no harm, where the lock was never acquired or was released before, and
// ErrNotHeld together with ErrLost where it was lost.
//
// Unlock waits for Redis to confirm, for one TTL at most, and takes no context:
// a release has to go through also when the caller's context has ended. If Redis
// cannot be reached in several attempts it returns what the network said; the
// manager goes on trying until the lease ends by itself. After a reply that was
// lost it returns nil if the key is not this lock's any more: the first attempt
// may have released it, or the lock may have been lost before. It does not wait
// where the caller has nothing to lose by it: a lock that was lost or has failed
// is cleaned up after behind his back.
func (l *Lock) Unlock() error {
	if err := l.unlock(context.Background()); err != nil {
		return &Error{callUnlock, l.Key(), err}
	}
	return nil
}

// Release is Unlock, but waits for no longer than ctx lasts. The release is sent in any
// case, also if ctx has ended before; when ctx ends before Redis has confirmed, Release
// returns the context's error, and the manager goes on until the lease ends.
func (l *Lock) Release(ctx context.Context) error {
	if err := l.unlock(ctx); err != nil {
		return &Error{callRelease, l.Key(), err}
	}
	return nil
}

func (l *Lock) unlock(ctx context.Context) error {
	if l.isNone() {
		return ErrNotHeld
	}
	if ctx == nil {
		return invalid("context is nil")
	}
	m := l.manager
	m.mu.Lock()
	now := time.Now()
	l.checkLease(now)
	switch l.state {
	case waiting:
		m.abandon(l, ErrReleased)
	case held:
		m.end(l)
	case lost:
		err := causes(ErrNotHeld, l.reason())
		m.end(l)
		m.exitUnlock()
		return err
	default:
		m.mu.Unlock()
		return ErrNotHeld
	}
	if l.state == leaving { // else there was nothing to clean up
		m.unlocking.add(m, l, now)
		if m.quorum != nil {
			m.settle(l) // enough nodes may have nothing of it
		}
	}
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() {
			m.mu.Lock()
			defer m.exit()
			l.confirmed(contextError(ctx, errGoesOn))
		})
		defer stop()
	}
	m.exitUnlock()
	l.cleaned.Wait()
	return l.cleanErr
}

// exitUnlock is exit, for one who may have to send what nobody else does.
func (m *LockManager) exitUnlock() {
	drained := m.drained
	m.exit()
	if drained {
		m.drain()
	}
}

// unlocking are the locks for whose release somebody waits in Unlock. One timer
// watches over all of them. Guarded by the manager's mutex.
type unlocking struct {
	locks list
	timer *time.Timer
	at    time.Time // when the timer runs; zero: it does not
}

// add has Unlock wait until confirmed is called, which is to be a TTL from now
// at the latest.
func (u *unlocking) add(m *LockManager, l *Lock, now time.Time) {
	l.unlocking, l.unlockBy = true, now.Add(l.ttl)
	l.cleaned.Add(1)
	u.locks.push(l)
	u.setTimer(m, l.unlockBy, now)
}

// setTimer has the timer run at the given time, or sooner. It is hardly ever
// set: releases are confirmed long before it runs, and it is left to run.
func (u *unlocking) setTimer(m *LockManager, at, now time.Time) {
	if !u.at.IsZero() && !at.Before(u.at) {
		return
	}
	u.at = at
	if u.timer == nil {
		u.timer = time.AfterFunc(at.Sub(now), m.unlockOverdue)
	} else {
		u.timer.Reset(at.Sub(now))
	}
}

// unlockOverdue lets those return who have waited for a TTL.
func (m *LockManager) unlockOverdue() {
	m.mu.Lock()
	defer m.exit()
	u := &m.unlocking
	u.at = time.Time{}
	now := time.Now()
	var next *Lock
	for l := u.locks.first; l != nil; {
		following := l.next
		if !now.Before(l.unlockBy) {
			l.confirmed(causes(errNoAnswer, context.DeadlineExceeded))
		} else if next == nil || l.unlockBy.Before(next.unlockBy) {
			next = l
		}
		l = following
	}
	if next != nil {
		u.setTimer(m, next.unlockBy, now)
	}
}

// confirmed lets Unlock return, once.
func (l *Lock) confirmed(err error) {
	if !l.unlocking {
		return
	}
	u := &l.manager.unlocking
	l.unlocking, l.cleanErr = false, err
	l.cleaned.Done()
	u.locks.remove(l)
	if l.manager.closed && u.locks.length == 0 && u.timer != nil {
		u.timer.Stop()
		u.at = time.Time{}
	}
}
