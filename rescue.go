package redislock

import (
	"slices"
	"time"
)

// A connection may go silent without being cut, and the client's time-outs are longer
// than anybody cares to wait. So what is not answered in time is sent again over
// another connection, and the first answer counts. What was sent first may still be
// carried out, at any time later.
//
// Invariant: whatever a late request does in Redis is the lock's, if that is still
// waiting or held, and is undone otherwise.

// copies counts what is under way of one request.
type copies struct {
	n       int
	settled bool      // one of them was answered
	next    time.Time // no other is made before; zero: no matter
}

// settledBy takes in that one of them was answered or has failed, and tells whether
// that counts: the first answer does, or the last failure if there was none.
func (c *copies) settledBy(failed bool) bool {
	c.n--
	if c.settled || failed && c.n > 0 {
		return false
	}
	c.settled = true
	return true
}

// One is sent over yet another connection up to copiesAtOnce times as soon as those
// before it have stalled, and then after twice as long each time, up to maxCopies: a
// client may keep many connections that are dead, and Redis may stand still.
const (
	copiesAtOnce = 3
	maxCopies    = 8
)

// more tells whether another copy is to be made, and else when there may be.
func (c *copies) more(now time.Time, stall time.Duration) (bool, time.Time) {
	switch {
	case c.settled || c.n >= maxCopies:
		return false, time.Time{}
	case c.n < copiesAtOnce:
	case c.next.IsZero():
		c.next = now.Add(stall)
		return false, c.next
	case now.Before(c.next):
		return false, c.next
	default:
		c.next = now.Add(stall << (c.n - copiesAtOnce + 1))
	}
	c.n++
	return true, c.next
}

func (s *shard) watchIn(d time.Duration) {
	s.watching = true
	time.AfterFunc(d, s.watchBatches)
}

// watchBatches rescues those that have stalled. It runs as long as there are any
// under way.
func (s *shard) watchBatches() {
	s.m.mu.Lock()
	defer s.m.exit()
	s.watching = false
	if s.m.closed {
		return
	}
	now := time.Now()
	next := time.Time{}
	for _, b := range s.inFlight {
		if b.rescued {
			continue
		}
		at := b.rescueAt
		if at.IsZero() {
			at = s.dueBy(b)
		}
		if !now.Before(at) {
			b.rescueAt = s.rescue(b, now)
			if b.rescued = b.rescueAt.IsZero(); b.rescued {
				continue
			}
			at = b.rescueAt
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	if !next.IsZero() {
		s.watchIn(max(next.Sub(now), time.Millisecond))
	}
}

// rescue sends again what somebody waits for in a batch that has stalled. It returns
// when there may be more to do, or zero. A release is sent again only if its owner
// value is this lock's alone: a late copy would release the next lock that goes by it.
func (s *shard) rescue(b *batch, now time.Time) (next time.Time) {
	b.submitBehind(s.m)
	if s.connecting(now) { // which another copy would have to wait for as well
		return now.Add(stallAfter)
	}
	stall := s.roundTrip.stretch(stallAfter)
	for _, o := range b.ops {
		l := o.lock
		switch {
		case o.kind == opExtend && l.state == held:
		case o.acquires() && l.state == waiting && s.m.quorum == nil && !l.hasChosenValue(): // a copy may come late
		case o.kind == opRelease && s.m.quorum == nil && !l.hasChosenValue():
		default:
			continue
		}
		if o.copies == nil {
			o.copies = &copies{n: 1}
		}
		more, at := o.copies.more(now, stall)
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
		if !more {
			continue
		}
		if o.kind != opExtend {
			o.uncertain = true
		}
		x := &op{
			kind: o.kind, lock: l, ttl: o.ttl, answer: o.answer, copies: o.copies, vote: o.vote, node: o.node,
			simple: o.simple, join: o.join, look: o.look, rejoin: o.rejoin, uncertain: o.uncertain,
		}
		if o.acquires() {
			x.kind = opAcquire
		}
		s.m.submit(x)
	}
	return next
}

// connecting tells whether a batch waits for a connection, and has not for long.
func (s *sender) connecting(now time.Time) bool {
	return slices.ContainsFunc(s.inFlight, func(b *batch) bool {
		return b.written.Load() == 0 && now.Before(s.dueBy(b))
	})
}

// settles tells whether the answer to an acquire or a release that was sent several
// times is the one that counts.
func (m *LockManager) settles(o *op, err error) bool {
	late := o.copies.settled
	if !late && o.failure == noScript {
		return true // it is sent once more
	}
	settled := o.failure.settled()
	counts := o.copies.settledBy(!settled)
	switch {
	case late && o.kind == opRelease:
		m.lateRelease(o, err)
	case late:
		m.late(o, err)
	case counts && (!settled || o.kind == opRelease):
		o.copies = nil // it may be tried again, alone
	}
	return counts
}

// lateRelease takes in the answer to a release that was answered before, over another
// connection. It may be the one that was carried out, and tell of a grant: the other
// has then found that the key was not the lock's any more.
func (m *LockManager) lateRelease(o *op, err error) {
	if err != nil || o.simple {
		return
	}
	if r, err := decodeRelease(o.cmd.Val()); err == nil && r.handed {
		if next := m.tickets[r.seq]; next != nil {
			m.confirm(next)
		}
	}
}

// late takes in the answer to an acquire that was answered before, over another
// connection. It may have done more: what it left in Redis belongs to the lock, or
// to nobody if that is gone by now.
func (m *LockManager) late(o *op, err error) {
	l := o.lock
	r := acquireReply{held: o.cmd.Err() == nil}
	if o.kind == opAcquire && err == nil {
		r, err = decodeAcquire(o.cmd.Val())
	}
	if err != nil && !r.held {
		return // it has done nothing, or nobody knows
	}
	m.turned(l.key, r)
	if !r.held && !o.join {
		return
	}
	switch l.state {
	case leaving:
		l.haunted = true // it may have run before the release, or after
	case gone:
		m.exorcise(l)
	case waiting:
		l.trace, l.joined = true, l.joined || o.join
		if r.held || l.score != 0 && r.score > l.score { // a place behind its own
			m.confirm(l)
		}
	default:
		l.joined = l.joined || o.join // to be looked for as it is released
	}
}

// exorcise removes what a late acquire has left of a lock that is gone.
func (m *LockManager) exorcise(l *Lock) {
	m.submit(&op{kind: opRelease, lock: m.ghostOf(l)})
}
