package redislock

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// A ballot is how a lock stands with the nodes of a quorum. Guarded by the
// manager's mutex.
//
// Invariant: of claims, confirmations and releases of one lock, each node has at
// most one under way. So a release never overtakes the claim that it undoes, nor
// the next claim the release.
type ballot struct {
	stands []stand   // by node
	vote   *vote     // for the lock, not decided yet; nil: none
	rounds int       // votes in a row to which no majority answered
	since  time.Time // when the first of those began
	splits int       // votes in a row in which nobody had a majority
	known  bool      // a majority has answered once
}

// stand is how a lock stands with one node.
type stand struct {
	op    *op  // under way
	next  *op  // to be sent once that is answered
	trace bool // the key may hold `value` there
	value any  // the owner value that was claimed with
	ghost bool // a release of the lock's value was sent that may still arrive
	wipe  bool // and is to be released as soon as nothing else is under way
	freed freed
	err   error // the last failure to release it

	unreached error // why there was no connection for the last claim; nil: there was
}

// freed is what came of the release at a node.
type freed uint8

const (
	unknown freed = iota // not answered yet
	removed              // the key held the value, or may have
	missing              // it did not
	failed               // the node could not be reached in many attempts
)

// proceed sends what is next for a lock at a node, unless something is under way
// there. The caller holds m.mu, as for all here.
func (m *LockManager) proceed(l *Lock, node int) {
	st := &l.ballot.stands[node]
	if st.op != nil {
		return
	}
	if st.wipe && !st.trace {
		st.wipe, st.freed = false, missing
	}
	if s := m.shards[node]; st.wipe && m.closed && s.failures > 0 {
		// Close would have to wait for it once more.
		st.wipe, st.trace, st.freed, st.err = false, false, failed, errNoAnswer
	}
	switch {
	case st.wipe:
		st.op = &op{kind: opRelease, lock: l, since: l.releaseSince(), node: node, value: st.value}
	case st.next != nil && st.next.kind == opVote && st.ghost && st.next.value == l.valueArg:
		// The release that it had to wait for may have been sent twice.
		v := st.next.vote
		st.next = nil
		v.answers[node] = answer{verdict: none, err: errGhost}
		m.count(v, time.Now())
		return
	case st.next != nil:
		st.op, st.next = st.next, nil
		st.op.uncertain = st.trace // the key may hold the value from before
		st.trace, st.value = true, st.op.value
	default:
		return
	}
	m.submit(st.op)
}

// withdraw takes back what has not been sent to a node yet, except a release.
func (m *LockManager) withdraw(l *Lock, node int) {
	st := &l.ballot.stands[node]
	st.next = nil
	if o := st.op; o != nil && o.kind != opRelease && m.shards[node].withdraw(o) {
		st.op, st.trace = nil, o.uncertain
	}
}

// withdraw takes an op out of what is to be sent, and tells whether it was there.
func (s *sender) withdraw(o *op) bool {
	if o.list != &s.pending && o.list != &s.refused {
		return false
	}
	o.list.remove(o)
	return true
}

// takeBack releases whatever any node has of the lock or may have, those that have
// not answered included.
func (m *LockManager) takeBack(l *Lock) {
	for i := range l.ballot.stands {
		m.withdraw(l, i)
		st := &l.ballot.stands[i]
		st.wipe, st.freed = true, unknown
		m.proceed(l, i)
	}
}

// wipe is cleanUp for a quorum.
func (m *LockManager) wipe(l *Lock) {
	b := l.ballot
	if b == nil {
		m.forget(l)
		return
	}
	if v := b.vote; v != nil {
		v.decide()
		v.timer.Stop()
	}
	m.takeBack(l)
	m.settle(l)
}

// voted takes in a node's answer, as complete does elsewhere.
func (m *LockManager) voted(o *op, s *shard, err error, now time.Time) {
	if o.kind == opExtend {
		m.nodeExtended(o, err, now)
		return
	}
	o.lock.ballot.stands[o.node].op = nil
	switch o.kind {
	case opVote:
		m.nodeVoted(o, s, err, now)
	case opConfirm:
		m.nodeConfirmed(o, err, now)
	default:
		m.nodeReleased(o, err)
	}
	m.proceed(o.lock, o.node)
	m.settle(o.lock)
}

// nodeTryAgain decides whether a node is asked again after a failure. For a claim
// it is not: the node counts as one that has not answered, and who waits will
// vote again anyway.
func (m *LockManager) nodeTryAgain(o *op, err error, now time.Time) bool {
	l := o.lock
	switch {
	case m.closed:
		return false
	case o.kind == opRelease:
		st := &l.ballot.stands[o.node]
		st.err = err
		limit := maxReleaseAttempts
		if o.failure.refused() {
			limit = maxRefusals
		}
		if o.attempts < limit {
			return true
		}
		st.freed = failed
		m.settle(l)
		return now.Before(l.validUntil)
	case o.kind == opExtend:
		return !o.copies.settled && o.copies.n <= 1 &&
			l.state == held && now.Before(l.validUntil) && o.attempts < maxAttempts
	}
	return false
}

// nodeReleased takes in the answer of release.lua.
func (m *LockManager) nodeReleased(o *op, err error) {
	l, st := o.lock, &o.lock.ballot.stands[o.node]
	var r releaseReply
	if err == nil {
		r, err = decodeRelease(o.cmd.Val())
	}
	switch {
	case err != nil:
		st.freed, st.err = failed, err
		if m.ended == nil || l.token != 0 {
			m.warn("release failed at a node, the lease has to run out",
				"key", l.key, "value", masked(l.value), "node", o.node+1, "error", err)
		}
	case r.released || o.uncertain: // an attempt whose answer was lost may have done it
		st.freed = removed
	default:
		st.freed = missing
	}
	st.trace, st.wipe = false, false
	st.ghost = st.ghost || o.value == l.valueArg && (err != nil || o.uncertain)
}

// rename gives a lock that competes another owner value if a release of the one it
// has may still arrive somewhere, sent over a connection that failed: it would take
// a later vote away. A caller's own value has to stay; the lock goes without such
// a node then.
func (m *LockManager) rename(l *Lock) {
	if l.options.value != "" || !slices.ContainsFunc(l.ballot.stands, func(st stand) bool { return st.ghost }) {
		return
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return
	}
	delete(m.named, [2]string{l.key, l.value})
	l.value = id.String()
	l.valueArg = l.value
	m.named[[2]string{l.key, l.value}] = l
	for i := range l.ballot.stands {
		l.ballot.stands[i].ghost = false
	}
}

// settle tells Unlock as soon as a majority of nodes says what became of the lock,
// and forgets the lock once no node has anything of it.
func (m *LockManager) settle(l *Lock) {
	if l.state != leaving {
		return
	}
	var count [failed + 1]int
	idle := true
	for i := range l.ballot.stands {
		st := &l.ballot.stands[i]
		count[st.freed]++
		idle = idle && st.op == nil
	}
	need := m.quorum.majority
	wasHeld := l.token != 0 && errors.Is(l.err, ErrReleased)
	switch {
	case !l.unlocking:
	case count[removed] >= need || !wasHeld && count[removed]+count[missing] >= need:
		l.confirmed(nil)
	case count[missing] >= need:
		l.confirmed(causes(ErrNotHeld, ErrLost, errTakenAway))
		m.warn("lock was lost before it was released",
			"key", l.key, "value", masked(l.value), "token", l.token)
	case count[removed]+count[unknown] < need && count[missing]+count[unknown] < need:
		l.confirmed(l.ballot.notReleased())
	}
	if idle {
		if m.closed && m.closeErr == nil && m.ended == nil && count[removed]+count[missing] < need {
			m.closeErr = l.ballot.notReleased()
		}
		m.forget(l)
	}
}

// barred tells that no majority of nodes may vote on the lock any more: see rename.
func (b *ballot) barred(majority int) bool {
	able := 0
	for _, st := range b.stands {
		if !st.ghost {
			able++
		}
	}
	return able < majority
}

func (b *ballot) notReleased() error {
	reasons := []error{errors.New("no majority of nodes confirmed the release")}
	for i, st := range b.stands {
		if st.freed == failed && st.err != nil {
			reasons = append(reasons, fmt.Errorf("node %d of %d: %w", i+1, len(b.stands), st.err))
		}
	}
	return causes(reasons...)
}

// outOfReach tells that no majority of nodes can be connected to, as far as is known.
func (b *ballot) outOfReach(majority int) bool {
	within := 0
	for _, st := range b.stands {
		if st.unreached == nil {
			within++
		}
	}
	return within < majority
}

// reachesMajority tells whether a majority of nodes has ever answered.
func (m *LockManager) reachesMajority() bool {
	reached := 0
	for _, s := range m.shards {
		if s.reached() {
			reached++
		}
	}
	return reached >= m.quorum.majority
}
