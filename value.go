package redislock

import "time"

// Owner values of the caller's choice (WithValue). Several managers may use the same
// one: that a key has a lock's value does not tell whose it is then.
//
// Invariant: a lock counts a value that it finds as its own, and removes it, only if
// it may have put it there itself: an attempt of its own may have arrived, or a grant
// of it was heard; and only while its lease may last. In doubt the key is left to
// the end of its lease.
//
// A value of the library's own making is random. Whoever finds that in a key has put
// it there, at whatever time, so nothing of this matters to it.

// Locks with a value of the caller's choice have odd numbers: of a grant to one that
// is gone nothing else is known than its number.
const seqStep = 2

func isChosen(seq uint64) bool { return seq%seqStep == 1 }

// number gives a new lock its number.
func (m *LockManager) number(l *Lock) {
	m.seq += seqStep
	l.seq = m.seq
	if l.hasChosenValue() {
		l.seq++
	}
}

func (l *Lock) hasChosenValue() bool { return l.options.value != "" }

// mayOwn tells whether a value that is like the lock's may be its own doing.
func (l *Lock) mayOwn() bool { return l.own || !l.hasChosenValue() }

// spares tells that a release, if it is sent now, leaves the key alone even where that has
// the lock's value. One that is of nobody else is never spared. One of the caller's choice
// may be another's as soon as the lease is over that the lock had, or may have got from
// an attempt of its own; so a release that comes late, whatever has held it up, says
// so. The caller holds m.mu, as for all here.
func (o *op) spares(now time.Time) bool {
	l := o.lock
	switch {
	case !l.hasChosenValue():
		return false
	case l.ballot == nil && !l.own: // a node is asked only if an attempt may have arrived there
		return true
	case l.token != 0:
		return !now.Before(l.validUntil)
	}
	return now.Sub(o.since) >= l.ttl
}

// releaseSince returns op.since of a release that is made now.
func (l *Lock) releaseSince() (now time.Time) {
	if l.hasChosenValue() {
		now = time.Now()
	}
	return now
}

// disclaim: what the key has from here on is no longer the lock's, which was lost: it
// is another's, or about to expire.
func (m *LockManager) disclaim(l *Lock) {
	l.own = false
	if l.hasChosenValue() && l.ballot != nil {
		for i := range l.ballot.stands {
			l.ballot.stands[i].trace = false
		}
	}
}

// heardGrant: a waiter here was made the holder. One with a chosen value that has left
// the line meanwhile gives the key back.
func (m *LockManager) heardGrant(l *Lock) {
	if l.token != 0 {
		return // it was held: the message came twice
	}
	l.own = true
	if l.state == leaving && l.hasChosenValue() {
		l.trace = true
		l.doubt = l.inFlight // it is not what that will be answered
		m.cleanUp(l)
	}
}

// crossed: a waiter was made the holder at that time of the server's clock, and has been
// seen in line since. One with a random value has lost the key again in between, as it
// would have found its value there. One with a chosen value may have found it, and taken
// it for another's, as it had not heard of the grant: it asks once more, unless that
// lease is over.
func (m *LockManager) crossed(l *Lock, server time.Duration) {
	if l.hasChosenValue() && l.asOf-server < l.ttl {
		m.heardGrant(l)
		m.confirm(l)
	}
}

// leftBehind takes in that the key has the value of a waiter that has left the line,
// and that this waiter does not know of any grant. If there is one, it is on its way
// here, and is waited for; else the key is another's, who goes by the same value.
func (m *LockManager) leftBehind(l *Lock) {
	l.confirmed(nil)
	l.releasing, l.trace, l.joined = false, false, false
	if name := [2]string{l.key, l.value}; m.named[name] == l {
		delete(m.named, name) // others may use it
	}
	switch {
	case l.own: // heard since
		m.heardGrant(l)
	case m.closed:
		m.forget(l)
	default:
		time.AfterFunc(l.ttl, func() {
			m.mu.Lock()
			defer m.exit()
			if l.state == leaving && !l.releasing {
				m.forget(l)
			}
		})
	}
}

// forgetLeavers forgets those whose grants Close does not wait for.
func (m *LockManager) forgetLeavers() {
	for _, l := range m.tickets {
		if l.state == leaving && l.hasChosenValue() && !l.inFlight && !l.releasing {
			m.forget(l)
		}
	}
}
