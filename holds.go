package redislock

import "time"

// holds are the locks that are held, by when the loss of each is due: one timer
// for all of them. Guarded by the manager's mutex.
//
// Invariant: a lock is in the heap exactly while it is held, at its loss or sooner.
// So a loss is told and logged when it happens, whether anybody looks or not.
//
// An extension leaves a lock where it is: it is moved on when its turn comes. So
// one that is renewed again and again costs a move in a TTL.
type holds struct {
	due   []hold // a heap, the earliest first
	base  time.Time
	timer *time.Timer
	at    time.Duration // when the timer runs; 0: it does not
	empty chan struct{} // closed once no lock is held, for Shutdown; nil: nobody waits for that
}

// A hold is short, as there may be many.
type hold struct {
	at   time.Duration // since base
	lock *Lock
}

// lossMargin is how long before ValidUntil the loss is signalled, so that the
// signal is there by then.
func lossMargin(ttl time.Duration) time.Duration { return min(ttl/50, 5*time.Millisecond) }

// lossDue returns when the loss of a held lock is due, as things stand.
func (h *holds) lossDue(l *Lock) time.Duration {
	return l.validUntil.Add(-lossMargin(l.ttl)).Sub(h.base)
}

// add takes in a lock that is held from now on.
func (h *holds) add(m *LockManager, l *Lock, now time.Time) {
	if h.base.IsZero() {
		h.base = now.Add(-time.Second) // so that 0 is no time at which anything is due
	}
	h.due = append(h.due, hold{h.lossDue(l), l})
	h.up(len(h.due) - 1)
	h.setTimer(m, now)
}

// remove takes out a lock that is held no longer.
func (h *holds) remove(m *LockManager, l *Lock) {
	i, last := int(l.holdAt), len(h.due)-1
	moved := h.due[last]
	h.due[last] = hold{}
	h.due = h.due[:last]
	if i != last {
		h.due[i] = moved
		h.down(i)
		h.up(int(moved.lock.holdAt))
	}
	if len(h.due) == 0 && h.empty != nil {
		close(h.empty)
		h.empty = nil
	}
	if m.closed {
		h.stopUnused()
	}
}

// stopUnused has no timer keep a closed manager in memory.
func (h *holds) stopUnused() {
	if len(h.due) == 0 && h.timer != nil {
		h.timer.Stop()
		h.at = 0
	}
}

// setTimer has the timer run when the first loss is due, or sooner: as most locks are
// released long before, it is left to run, and hardly ever set.
func (h *holds) setTimer(m *LockManager, now time.Time) {
	if len(h.due) == 0 || h.at != 0 && h.at <= h.due[0].at {
		return
	}
	h.at = max(h.due[0].at, 1)
	wait := h.at - now.Sub(h.base)
	if h.timer == nil {
		h.timer = time.AfterFunc(wait, m.losses)
	} else {
		h.timer.Reset(wait)
	}
}

// losses tells those that are due.
func (m *LockManager) losses() {
	m.mu.Lock()
	defer m.exit()
	h := &m.holds
	h.at = 0
	now := time.Now()
	for len(h.due) > 0 && h.due[0].at <= now.Sub(h.base) {
		l := h.due[0].lock
		if at := h.lossDue(l); at > h.due[0].at { // extended in the meantime
			h.due[0].at = at
			h.down(0)
			continue
		}
		l.checkLease(now.Add(lossMargin(l.ttl)))
	}
	h.setTimer(m, now)
}

func (h *holds) put(i int, e hold) {
	h.due[i] = e
	e.lock.holdAt = int32(i)
}

func (h *holds) up(i int) {
	e := h.due[i]
	for i > 0 && e.at < h.due[(i-1)/2].at {
		h.put(i, h.due[(i-1)/2])
		i = (i - 1) / 2
	}
	h.put(i, e)
}

func (h *holds) down(i int) {
	e := h.due[i]
	for {
		child := 2*i + 1
		if child+1 < len(h.due) && h.due[child+1].at < h.due[child].at {
			child++
		}
		if child >= len(h.due) || e.at <= h.due[child].at {
			break
		}
		h.put(i, h.due[child])
		i = child
	}
	h.put(i, e)
}
