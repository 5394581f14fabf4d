package redislock

import "time"

// A connection may go silent without being cut, and the client's time-outs are longer
// than anybody cares to wait. So what is not answered in time is sent again over
// another connection, and the first answer counts. What was sent first may still be
// carried out, at any time later.
//
// Invariant: whatever a late request does in Redis is the lock's, if that is still
// waiting or held, and is undone otherwise.

// copies counts what is under way of one extension, or acquire.
type copies struct {
	n       int
	settled bool // one of them was answered
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

// maxCopies bounds how often one is sent over yet another connection.
const maxCopies = 3

// dueBy returns when a batch should have been answered. Redis may take its time
// over many requests.
func (b *batch) dueBy() time.Time {
	return b.began.Add(stallAfter + time.Duration(len(b.ops))*100*time.Microsecond)
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
		switch due := b.dueBy(); {
		case b.rescued:
		case !now.Before(due):
			b.rescued = true
			s.rescue(b)
		case next.IsZero() || due.Before(next):
			next = due
		}
	}
	if !next.IsZero() {
		s.watchIn(next.Sub(now))
	}
}

// rescue sends again what somebody waits for in a batch that has stalled. Releases are
// not: the lease ends by itself.
func (s *shard) rescue(b *batch) {
	b.submitBehind(s.m)
	for _, o := range b.ops {
		switch {
		case o.copies != nil && (o.copies.settled || o.copies.n >= maxCopies):
		case o.kind == opExtend && o.lock.state == held:
			o.copies.n++
			s.m.submit(&op{
				kind: opExtend, lock: o.lock, ttl: o.ttl, answer: o.answer, copies: o.copies,
				vote: o.vote, node: o.node,
			})
		case o.acquires() && o.lock.state == waiting && !o.lock.hasChosenValue(): // a copy may come late
			if o.copies == nil {
				o.copies = &copies{n: 1}
			}
			o.copies.n++
			o.uncertain = true
			s.m.submit(&op{
				kind: opAcquire, lock: o.lock, join: o.join, look: o.look, rejoin: o.rejoin, copies: o.copies,
				uncertain: true,
			})
		}
	}
}

// settles tells whether the answer to an acquire that was sent several times is the
// one that counts.
func (m *LockManager) settles(o *op, err error) bool {
	late := o.copies.settled
	if !late && o.failure == noScript {
		return true // it is sent once more
	}
	settled := o.failure.settled()
	counts := o.copies.settledBy(!settled)
	switch {
	case late:
		m.late(o, err)
	case counts && !settled:
		o.copies = nil // it is tried again, alone
	}
	return counts
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
	x := m.ghost(l.key, l.value)
	x.seq, x.ttl, x.joined = l.seq, l.ttl, true
	m.submit(&op{kind: opRelease, lock: x})
}
