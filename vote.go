package redislock

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// A vote is one request to all nodes of a quorum, and its counting: for a lock, or
// on an extension. It is decided once, as soon as a majority has agreed or none
// can any more. Guarded by the manager's mutex.
type vote struct {
	lock    *Lock
	began   time.Time // before anything was sent
	token   int64     // the one proposed; once a majority has agreed, the lock's
	agreed  bool      // a majority has, and is to confirm the token
	lost    bool      // no majority can agree any more
	decided bool
	again   bool     // nodes that are missing have been asked again, or will be
	answers []answer // by node
	timer   *time.Timer

	// On an extension only.
	extension *op   // whoever asked for it is told through this
	ops       []*op // by node
}

// answer is that of one node.
type answer struct {
	verdict verdict
	token   int64         // yes: the node's fence is there, or above
	lease   time.Duration // no; yes to an extension: what the key has left
	holder  string        // no: whose value the key has
	rival   string        // yes: see vote.lua
	polled  bool          // yes or no: see vote.lua
	err     error         // none: why
}

type verdict uint8

const (
	open verdict = iota // not answered yet
	yes
	no
	none // failed, or not to be waited for; may turn into another yet
)

const (
	// quorumDrift is what distlock takes off a lease beside 1 %, for the precision
	// of expiry.
	quorumDrift = 2 * time.Millisecond

	// minQuorumTTL leaves something of a lease after that.
	minQuorumTTL = 5 * time.Millisecond

	maxVoteTimeout = 250 * time.Millisecond

	// reinforceAfter is when nodes that are missing are asked again.
	reinforceAfter = 50 * time.Millisecond

	// maxPatience is how long a vote waits, within a tenth of the lease, where too few
	// have answered to make a majority: to give up sooner would help nobody.
	maxPatience = time.Second
)

// voteTimeout is how long a node may take to answer before the rest decide
// without it: far less than the lease, whatever the client's time-outs are.
func voteTimeout(ttl time.Duration) time.Duration {
	return min(max(ttl/10, min(ttl/3, 10*time.Millisecond)), maxVoteTimeout)
}

// newVote begins a vote. Nodes that are away count as no answer from the start: a
// result that hangs on them is not waited for, unless there is no majority
// without them. The caller holds m.mu, as for all here.
func (m *LockManager) newVote(l *Lock) *vote {
	v := &vote{lock: l, began: time.Now(), answers: make([]answer, len(m.shards))}
	away := 0
	for i, s := range m.shards {
		if s.away(v.began, voteTimeout(l.ttl)) {
			away++
			v.answers[i] = answer{verdict: none, err: errNoAnswer}
		}
	}
	if len(m.shards)-away < m.quorum.majority {
		clear(v.answers)
	}
	v.timer = time.AfterFunc(voteTimeout(l.ttl), func() {
		m.mu.Lock()
		defer m.exit()
		m.voteOverdue(v)
	})
	return v
}

// away tells that the server cannot be reached at present, or has owed an answer
// for longer than it may take.
func (s *sender) away(now time.Time, timeout time.Duration) bool {
	return s.failures > 0 || s.hangs(now, timeout)
}

func (s *sender) hangs(now time.Time, timeout time.Duration) bool {
	return len(s.inFlight) > 0 && now.Sub(s.inFlight[0].began) > timeout
}

// campaign has all nodes vote for a lock that waits.
func (m *LockManager) campaign(l *Lock) {
	if l.ballot == nil {
		l.ballot = &ballot{stands: make([]stand, len(m.shards))}
	}
	m.rename(l)
	v := m.newVote(l)
	l.ballot.vote = v
	v.token = m.quorum.propose(m, v.began)
	for i, s := range m.shards {
		if v.answers[i].verdict == none && s.pending.length > 0 {
			continue // one request is enough to see whether it is back
		}
		if l.ballot.stands[i].ghost {
			v.answers[i] = answer{verdict: none, err: errGhost}
			continue
		}
		l.ballot.stands[i].next = &op{kind: opVote, lock: l, vote: v, node: i, value: l.valueArg}
		m.proceed(l, i)
	}
}

// nodeVoted takes in the answer of vote.lua.
func (m *LockManager) nodeVoted(o *op, s *shard, err error, now time.Time) {
	l, v, st := o.lock, o.vote, &o.lock.ballot.stands[o.node]
	var r voteReply
	if err == nil {
		r, err = decodeVote(o.cmd.Val())
		o.uncertain = o.uncertain || err != nil
	} else if o.failure.mayHaveRun() {
		o.uncertain = true
	}
	if err == nil {
		s.observe(o.sent, now, r.server)
		m.quorum.highest = max(m.quorum.highest, r.token)
		if r.verdict == none {
			err = fmt.Errorf("started %v ago: no vote before %v", r.uptime, m.opts.guard)
		}
		st.trace = r.verdict == yes || r.verdict == none && o.uncertain
	} else {
		st.trace = o.uncertain
	}
	v.answers[o.node] = answer{r.verdict, r.token, r.lease, r.holder, r.rival, r.polled, err}
	if err != nil {
		v.answers[o.node].verdict = none
	}
	st.unreached = nil
	if o.failure == unsent {
		st.unreached = err
	}
	m.unreached(l, m.reachesMajority(), l.ballot.outOfReach(m.quorum.majority), now)
	if l.state == lost || v.lost {
		st.wipe = true // of no more use to anybody
	}
	switch a := &v.answers[o.node]; {
	case !v.agreed || v.decided:
	case a.verdict == yes && a.token > v.token:
		// If a key was lost since the majority agreed, another may have had the lock
		// with a token from in between.
		a.verdict, a.err = none, errLateVote
	default:
		m.confirmToken(v, o.node)
	}
	m.count(v, now)
	if l.state == held {
		m.reinforce(v)
	}
}

// count decides the vote for a lock if that can be done.
func (m *LockManager) count(v *vote, now time.Time) {
	if v.decided {
		return
	}
	sure, undecided := v.tally()
	if !v.agreed && !v.lost && sure >= m.quorum.majority {
		// The token is above that of every earlier holder, as one node at least had
		// part in both. It is the lock's once a majority of nodes has it for its
		// last: most often all have answered the same.
		v.agreed, v.token = true, 0
		for _, a := range v.answers {
			if a.verdict == yes {
				v.token = max(v.token, a.token)
			}
		}
		v.timer.Reset(voteTimeout(v.lock.ttl))
		for i := range v.answers {
			m.confirmToken(v, i)
		}
		sure, undecided = v.tally()
	}
	if !v.lost && sure >= m.quorum.majority {
		v.decide()
		m.elected(v, now)
		return
	}
	if !v.lost && sure+undecided < m.quorum.majority {
		v.lost = true
		m.concede(v)
	}
	// What is still to come tells when it is worth to try again.
	if _, taken := v.winner(m.quorum.majority); v.lost && (undecided == 0 || taken) {
		v.decide()
		v.timer.Stop()
		m.outvoted(v, now)
	}
}

// reinforce has the nodes asked once more that have not voted for a lock which is
// held: one of the others may be lost later. A node that said no may have had a
// value that was about to be released.
func (m *LockManager) reinforce(v *vote) {
	missing := false
	for _, a := range v.answers {
		missing = missing || a.verdict == no || a.verdict == none
	}
	if !missing || v.again {
		return
	}
	v.again = true
	time.AfterFunc(reinforceAfter, func() {
		m.mu.Lock()
		defer m.exit()
		l := v.lock
		for i, s := range m.shards {
			st := &l.ballot.stands[i]
			if l.state == held && !m.closed && st.op == nil && !st.trace && !st.ghost && s.pending.length == 0 {
				st.next = &op{kind: opVote, lock: l, vote: v, node: i, value: l.valueArg}
				m.proceed(l, i)
			}
		}
	})
}

// winner tells whether another has a majority, and whose value that is.
func (v *vote) winner(majority int) (holder string, taken bool) {
	for _, a := range v.answers {
		count := 0
		for _, b := range v.answers {
			if a.verdict == no && b.verdict == no && a.holder == b.holder {
				count++
			}
		}
		if count >= majority {
			return a.holder, true
		}
	}
	return "", false
}

// concede gives back at once what a lost vote has got so far.
func (m *LockManager) concede(v *vote) {
	for i := range v.answers {
		if v.answers[i].verdict == yes {
			v.lock.ballot.stands[i].wipe = true
			m.proceed(v.lock, i)
		}
	}
}

// tally returns how many nodes agree, to the token too, and how many may yet.
func (v *vote) tally() (sure, undecided int) {
	for i, a := range v.answers {
		switch {
		case v.pending(i):
			undecided++
		case a.verdict == yes:
			sure++
		}
	}
	return sure, undecided
}

// pending tells whether a node's answer is waited for.
func (v *vote) pending(node int) bool {
	a := v.answers[node]
	return a.verdict == open || !v.lost && a.verdict == yes && v.agreed && a.token < v.token
}

func (v *vote) decide() {
	v.decided = true
	v.lock.ballot.vote = nil
}

// confirmToken has a node that agreed take over the lock's token, if it is not
// there yet.
func (m *LockManager) confirmToken(v *vote, node int) {
	a, st := v.answers[node], &v.lock.ballot.stands[node]
	if a.verdict == yes && a.token < v.token && st.op == nil {
		st.next = &op{kind: opConfirm, lock: v.lock, vote: v, node: node, value: v.lock.valueArg}
		m.proceed(v.lock, node)
	}
}

// nodeConfirmed takes in the answer of confirm.lua.
func (m *LockManager) nodeConfirmed(o *op, err error, now time.Time) {
	v := o.vote
	a := &v.answers[o.node]
	confirmed, ok := asInt(o.cmd.Val())
	if err == nil && !ok {
		err = errors.New("unexpected reply to confirm")
	}
	switch {
	case err != nil:
		a.verdict, a.err = none, err
	case confirmed == 1:
		a.verdict, a.token = yes, v.token
	default:
		a.verdict, a.err = none, errTakenAway
		o.lock.ballot.stands[o.node].trace = false
	}
	m.count(v, now)
}

// voteOverdue goes on without the nodes that have not answered in time. What could
// not even be sent is dropped, so that nothing piles up for a node that hangs.
func (m *LockManager) voteOverdue(v *vote) {
	now := time.Now()
	again := false
	patient := v.answered() < m.quorum.majority && now.Sub(v.began) < min(v.lock.ttl/10, maxPatience)
	for i := range m.shards {
		o := v.outstanding(i)
		if o != nil && (patient || m.isBusy(o, now) && now.Sub(v.began) < v.lock.ttl/2) {
			again = true
			continue
		}
		if v.extension != nil {
			if o := v.ops[i]; !o.copies.settled && m.shards[i].withdraw(o) {
				o.copies.settled = true
			}
		} else if v.outstanding(i) != nil {
			m.withdraw(v.lock, i)
			m.proceed(v.lock, i)
		}
		if v.pending(i) {
			v.answers[i].verdict, v.answers[i].err = none, errNoAnswer
		}
	}
	if again {
		v.timer.Reset(voteTimeout(v.lock.ttl) / 2)
	}
	if v.extension != nil {
		m.countExtension(v, now)
		return
	}
	m.count(v, now)
	m.settle(v.lock)
}

// outstanding returns the vote's request to a node that has not been answered.
func (v *vote) outstanding(node int) *op {
	if v.extension != nil {
		if o := v.ops[node]; !o.copies.settled {
			return o
		}
		return nil
	}
	st := &v.lock.ballot.stands[node]
	for _, o := range []*op{st.op, st.next} {
		if o != nil && o.vote == v {
			return o
		}
	}
	return nil
}

// isBusy tells that a node that does answer has not had this request for long: it
// stood behind many others here.
func (m *LockManager) isBusy(o *op, now time.Time) bool {
	timeout := voteTimeout(o.lock.ttl)
	return !m.shards[o.node].away(now, timeout) && (o.sent.IsZero() || now.Sub(o.sent) < timeout)
}

// voteOnExtension asks all nodes for what o asks for.
func (m *LockManager) voteOnExtension(o *op) {
	v := m.newVote(o.lock)
	v.extension, v.ops = o, make([]*op, len(m.shards))
	for i, s := range m.shards {
		v.ops[i] = &op{
			kind: opExtend, lock: o.lock, ttl: o.ttl, answer: o.answer, copies: &copies{n: 1},
			vote: v, node: i,
		}
		if v.answers[i].verdict == none && s.pending.length > 0 && s.hangs(v.began, voteTimeout(o.lock.ttl)) {
			v.ops[i].copies.settled = true // see campaign
			continue
		}
		m.submit(v.ops[i])
	}
}

// nodeExtended takes in the answer of extend.lua.
func (m *LockManager) nodeExtended(o *op, err error, now time.Time) {
	if !o.copies.settledBy(err != nil) {
		return // another copy has been answered, or may be
	}
	lease, ok := asInt(o.cmd.Val())
	if err == nil && !ok {
		err = errors.New("unexpected reply to extend")
	}
	a := &o.vote.answers[o.node]
	switch {
	case err != nil:
		*a = answer{verdict: none, err: err}
	case lease < 0:
		*a = answer{verdict: no}
	default:
		*a = answer{verdict: yes, lease: time.Duration(min(lease, maxTTL.Milliseconds())) * time.Millisecond}
	}
	m.countExtension(o.vote, now)
}

// countExtension decides the vote on an extension if that can be done.
func (m *LockManager) countExtension(v *vote, now time.Time) {
	if v.decided {
		return
	}
	ayes, noes, undecided, lease := 0, 0, 0, maxTTL
	for _, a := range v.answers {
		switch a.verdict {
		case yes:
			ayes++
			lease = min(lease, a.lease)
		case no:
			noes++
		case open:
			undecided++
		}
	}
	need := m.quorum.majority
	switch {
	case ayes >= need:
		v.decided = true
		v.lock.checkLease(now) // too late is too late, whoever has had it in between
		m.extensionEnded(v.extension, v.began, lease.Milliseconds(), nil, now)
	case noes >= need:
		v.decided = true
		m.extensionEnded(v.extension, v.began, -1, nil, now)
	case ayes+undecided < need && noes+undecided < need:
		v.decided = true
		m.extensionFailed(v, now)
	}
}

// extensionFailed: nobody knows whether the lock has a majority. A caller's
// extension is tried again, within the lease; a renewal has its own next time.
func (m *LockManager) extensionFailed(v *vote, now time.Time) {
	o, l := v.extension, v.lock
	o.attempts++
	if o.answer == nil || o.attempts >= maxAttempts || m.closed || l.state != held || !now.Before(l.validUntil) {
		m.extensionEnded(o, v.began, 0, v.noMajority(), now)
		return
	}
	time.AfterFunc(backoff(o.attempts), func() {
		m.mu.Lock()
		defer m.exit()
		if m.closed || l.state != held {
			m.extensionEnded(o, v.began, 0, v.noMajority(), time.Now())
			return
		}
		m.submit(o)
	})
}

// answered returns how many nodes have said yes or no.
func (v *vote) answered() (n int) {
	for _, a := range v.answers {
		if a.verdict == yes || a.verdict == no {
			n++
		}
	}
	return n
}

// silent tells that a node has not answered in time, and said nothing that would
// make it useless to ask again.
func (v *vote) silent() bool {
	return slices.ContainsFunc(v.answers, func(a answer) bool { return a.err == errNoAnswer })
}

// noMajority says why too few nodes have answered.
func (v *vote) noMajority() error {
	text := fmt.Sprintf("no majority: %d of %d nodes answered", v.answered(), len(v.answers))
	if v.silent() {
		ttl := v.lock.ttl
		text += fmt.Sprintf(" within %v, as a ttl of %v wants it", max(voteTimeout(ttl), min(ttl/10, maxPatience)), ttl)
	}
	reasons := []error{errors.New(text)}
	for i, a := range v.answers {
		err := a.err
		if dial := v.lock.ballot.stands[i].unreached; a.verdict != yes && a.verdict != no && dial != nil {
			err = dial // the time it took says less
		}
		if err != nil {
			reasons = append(reasons, fmt.Errorf("node %d of %d: %w", i+1, len(v.answers), err))
		}
	}
	return causes(reasons...)
}
