package redislock

import (
	"container/heap"
	"time"
)

// renewals prolongs the leases of locks with WithAutoRenew: one timer for all of
// them, and those that are due go out together. Guarded by the manager's mutex.
//
// Invariant: a lock is in the heap, or a renewal of it is under way, from hold
// until it is no longer held or its longest hold is in sight.
type renewals struct {
	due   renewalHeap
	timer *time.Timer
}

// renewShare is how often a lease is renewed: this many times in a TTL.
const renewShare = 3

// maxRenewals bounds how often it is tried.
const maxRenewals = 30

// add schedules the next renewal.
func (r *renewals) add(m *LockManager, l *Lock, now time.Time) {
	if m.closed || m.ended != nil || l.heapAt >= 0 {
		return
	}
	// Less than a TTL is left of a lease that was granted late or not renewed in
	// time.
	l.renewAt = now.Add(max(min(l.ttl, l.validUntil.Sub(now))/renewShare, l.ttl/maxRenewals))
	heap.Push(&r.due, l)
	if l.heapAt == 0 {
		r.setTimer(m, now)
	}
}

func (r *renewals) remove(l *Lock) {
	if l.heapAt >= 0 {
		heap.Remove(&r.due, int(l.heapAt))
	}
}

func (r *renewals) setTimer(m *LockManager, now time.Time) {
	if len(r.due) == 0 {
		return
	}
	wait := r.due[0].renewAt.Sub(now)
	if r.timer == nil {
		r.timer = time.AfterFunc(wait, m.renew)
	} else {
		r.timer.Reset(wait)
	}
}

func (r *renewals) stop() {
	if r.timer != nil {
		r.timer.Stop()
	}
	for _, l := range r.due {
		l.heapAt = -1
	}
	r.due = nil
}

// renew sends the renewals that are due, and those that nearly are along with
// them.
func (m *LockManager) renew() {
	m.mu.Lock()
	defer m.exit()
	if m.closed {
		return
	}
	now := time.Now()
	for n := 0; n < maxBatch && len(m.renewals.due) > 0; n++ { // the rest at once, after others
		l := m.renewals.due[0]
		if l.renewAt.Sub(now) > l.ttl/20 {
			break
		}
		heap.Remove(&m.renewals.due, 0)
		l.checkLease(now)
		if l.state != held {
			continue
		}
		m.submit(&op{kind: opExtend, lock: l, copies: &copies{n: 1}})
	}
	m.renewals.setTimer(m, now)
}

// renewed schedules the next renewal once one has been answered or given up.
func (r *renewals) renewed(m *LockManager, l *Lock, now time.Time) {
	if l.state != held {
		return
	}
	l.capped = !l.renewEnd.IsZero() && !l.validUntil.Before(l.renewEnd.Add(-m.drift(l.ttl)-time.Millisecond))
	if !l.capped {
		r.add(m, l, now)
	}
}

// renewalHeap is a heap.Interface, the earliest first.
type renewalHeap []*Lock

func (h renewalHeap) Len() int           { return len(h) }
func (h renewalHeap) Less(i, j int) bool { return h[i].renewAt.Before(h[j].renewAt) }
func (h renewalHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapAt, h[j].heapAt = int32(i), int32(j)
}

func (h *renewalHeap) Push(x any) {
	l := x.(*Lock)
	l.heapAt = int32(len(*h))
	*h = append(*h, l)
}

func (h *renewalHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	l.heapAt = -1
	return l
}
