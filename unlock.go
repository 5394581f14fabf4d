package redislock

import (
	"context"
	"fmt"
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
// Unlock waits for Redis to confirm, for one TTL at most and no longer than 10 s,
// and takes no context: a release has to go through also when the caller's context
// has ended. If Redis cannot be reached in several attempts it returns what the
// network said, and if it does not answer in time an error that says so
// (context.DeadlineExceeded); the manager goes on trying until the lease ends by itself. After a reply that was
// lost it returns nil if the key is not this lock's any more: the first attempt
// may have released it, or the lock may have been lost before. It does not wait
// where the caller has nothing to lose by it: a lock that was lost or has failed
// is cleaned up after behind his back. Of a manager that was closed nobody is left to
// do that: then Unlock does, and waits for it as for any other.
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
		m.exitUnlock(ctx)
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
	drained := m.drained
	m.exit()
	if drained {
		go m.drain() // it ends with the client's time-outs, which are no bound for this call
	}
	l.cleaned.Wait()
	return l.cleanErr
}

// exitUnlock is exit, for one who may have to send what nobody else does, and waits for
// no answer but that: no longer than ctx lasts, or maxUnlock.
func (m *LockManager) exitUnlock(ctx context.Context) {
	drained := m.drained
	m.exit()
	if drained {
		within, cancel := context.WithTimeout(ctx, maxUnlock)
		defer cancel()
		joins(within, m.drain)
	}
}

// maxUnlock is how long Unlock waits for Redis to confirm, where the TTL is longer.
const maxUnlock = 10 * time.Second

// maxTry is how long TryLock waits for Redis's answer, where the TTL is longer.
const maxTry = 5 * time.Second

// unlocking are the locks for whose release somebody waits in Unlock, and those for
// which somebody waits in TryLock. One timer watches over all of them. Guarded by the
// manager's mutex.
type unlocking struct {
	locks list
	timer *time.Timer
	at    time.Time // when the timer runs; zero: it does not
}

// add has Unlock wait until confirmed is called, which is to be a TTL from now
// at the latest.
func (u *unlocking) add(m *LockManager, l *Lock, now time.Time) {
	l.unlocking, l.unlockBy = true, now.Add(min(l.ttl, maxUnlock))
	l.cleaned.Add(1)
	u.locks.push(l)
	u.setTimer(m, l.unlockBy, now)
}

// try has TryLock wait for a TTL at most: what is granted later is of no use.
func (u *unlocking) try(m *LockManager, l *Lock, now time.Time) {
	l.unlockBy = now.Add(min(l.ttl, maxTry))
	u.locks.push(l)
	u.setTimer(m, l.unlockBy, now)
}

// setTimer has the timer run at the given time, or sooner. It is hardly ever
// set: all is answered long before it runs, and it is left to run.
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

// unlockOverdue lets those return who have waited for as long as they are to.
func (m *LockManager) unlockOverdue() {
	m.mu.Lock()
	defer m.exit()
	u := &m.unlocking
	u.at = time.Time{}
	now := time.Now()
	var next *Lock
	for l := u.locks.first; l != nil; {
		following := l.next
		if !now.Before(l.unlockBy) && l.unlocking {
			l.confirmed(causes(
				fmt.Errorf("%w within %v, the manager goes on until the lease ends", errNoAnswer, min(l.ttl, maxUnlock)),
				context.DeadlineExceeded,
			))
		} else if !now.Before(l.unlockBy) {
			m.abandon(l, m.noAnswer(l))
		} else if next == nil || l.unlockBy.Before(next.unlockBy) {
			next = l
		}
		l = following
	}
	if next != nil {
		u.setTimer(m, next.unlockBy, now)
	}
}

// noAnswerWithin says how long Redis was waited for.
func noAnswerWithin(d time.Duration) error {
	return causes(fmt.Errorf("%w within %v", errNoAnswer, d), context.DeadlineExceeded)
}

// noAnswer is why TryLock fails that was not answered in time, or was refused for as
// long as that.
func (m *LockManager) noAnswer(l *Lock) error {
	within := min(l.ttl, maxTry)
	reasons := []error{noAnswerWithin(within)}
	if code, _ := answered(l.failure); code != "" {
		reasons = []error{fmt.Errorf("not served within %v", within)}
	}
	if l.ttl <= maxTry && m.quorum == nil { // a grant comes too late
		reasons = append([]error{ErrNotAcquired}, reasons...)
	}
	reasons = m.orFar(l, reasons)
	if l.failure != nil {
		reasons = append(reasons, l.failure)
	}
	if classify(l.failure) == replica {
		reasons = append(reasons, errReplica)
	}
	return causes(reasons...)
}

// orFar adds to why a lock came too late that it has to, where the way is longer than
// the TTL.
func (m *LockManager) orFar(l *Lock, reasons []error) []error {
	if m.quorum != nil {
		return reasons
	}
	way := m.shardOf(l.line.slot).roundTrip.estimate()
	if way < l.ttl {
		return reasons
	}
	return append(reasons, fmt.Errorf("a round trip to Redis takes %v, and the TTL is %v", way.Round(time.Millisecond), l.ttl))
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
	u.tidy(l.manager)
}

// tidy stops the timer of a manager that is closed.
func (u *unlocking) tidy(m *LockManager) {
	if m.closed && u.locks.length == 0 && u.timer != nil {
		u.timer.Stop()
		u.at = time.Time{}
	}
}
