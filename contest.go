package redislock

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

// Waiting in a quorum. There is no queue in Redis: a majority of nodes cannot move
// one on in one step. Callers of a manager stand in its line, and the first of
// them competes with those of other managers.

// A contest is what a manager knows of others that want a line's key. Guarded by
// the manager's mutex.
type contest struct {
	freeAt  []time.Time // when each node's key is free, as far as is known; zero: unknown
	freedAt []time.Time // when an event last said so of a node
	hears   []bool      // the key's events are subscribed to at the node
	again   bool        // they have begun to arrive during a vote

	polls  bool      // too few events arrive here to hear of a release
	pollAt time.Time // since when, if it does
	polled bool      // the same goes for somebody who waits, here or elsewhere
	holder string    // whose value a majority had when that was last known
	since  time.Time // when it was first seen there

	window  time.Duration // what the random delays are drawn from, or more: see spread
	rivalAt time.Time     // when somebody else was last known to want the key
	yield   time.Time     // the others come first until then
}

const (
	minWindow = 700 * time.Microsecond
	maxWindow = 50 * time.Millisecond

	// maxSplitWindow is for votes that nobody wins, again and again: somebody left
	// keys on some nodes, and others are away.
	maxSplitWindow = 500 * time.Millisecond

	// holderLook is how long the next one waits for one of its own manager before it
	// tries all the same, and has the key watched.
	holderLook = 100 * time.Millisecond

	// rivalMemory is how long others are thought to want the key after they were last
	// seen to: they try once a second at least.
	rivalMemory = 2500 * time.Millisecond

	// minPoll and maxPoll bound how often who hears of no release asks for the key, on
	// average.
	minPoll = 10 * time.Millisecond
	maxPoll = 100 * time.Millisecond

	// subscribing is how long the subscription to a key's events may take to be made. Only
	// who hears of no release for longer has the others go slowly for his sake.
	subscribing = 250 * time.Millisecond

	// maxTrySplits is after how many votes that nobody has won TryLock gives up.
	maxTrySplits = 3
)

func (m *LockManager) contestOf(ln *line) *contest {
	if ln.contest == nil {
		n := len(m.shards)
		ln.contest = &contest{
			freeAt: make([]time.Time, n), freedAt: make([]time.Time, n), hears: make([]bool, n),
			window: minWindow,
		}
	}
	return ln.contest
}

// enter puts a new lock on its way. The caller holds m.mu, as for all here.
func (m *LockManager) enter(l *Lock) {
	switch {
	case l.try:
		l.line.trying++
		m.campaign(l)
	case l.line.first == l:
		m.compete(l.line, l.line.turn(time.Now()))
	}
}

// mayBeFree tells whether the first here may get the key without waiting.
func (ln *line) mayBeFree() bool {
	return ln.holder == nil && ln.first != nil && (ln.first.ballot == nil || !ln.first.ballot.known)
}

// turn returns when the first here is to compete: at once; or when somebody else has
// had the chance to; or, while the key is held here, for the first time after
// holderLook, in case another program has freed it.
func (ln *line) turn(now time.Time) time.Time {
	at := now
	if ln.holder != nil {
		at = now.Add(min(holderLook, max(0, ln.holder.validUntil.Sub(now))))
	}
	if ln.contest != nil && ln.contest.yield.After(at) {
		at = ln.contest.yield
	}
	return at
}

// compete has the first here try for the key at the given time, or now.
func (m *LockManager) compete(ln *line, at time.Time) {
	ln.lookAt = time.Time{}
	l, now := ln.first, time.Now()
	switch {
	case m.closed || l == nil || l.ballot != nil && l.ballot.vote != nil:
	case at.After(now):
		ln.lookAt = at
		m.setTimer(ln, now)
	default:
		m.campaign(l)
	}
}

// moveUp has the next one compete when the first is about to leave the line.
func (m *LockManager) moveUp(l *Lock) {
	ln := l.line
	switch {
	case l.try:
		ln.trying--
	case ln.first == l && l.next != nil && !m.closed:
		now := time.Now()
		ln.lookAt = ln.turn(now)
		m.setTimer(ln, now)
	}
}

// vacated: the lock is no longer held here. Others who want it come first, so that
// no process keeps a key to itself; without any the next one here follows at
// once, and its claims go along with the release.
func (m *LockManager) vacated(l *Lock) {
	ln := l.line
	if m.quorum == nil || ln.holder != l {
		return
	}
	ln.holder = nil
	now := time.Now()
	if c := ln.contest; c != nil && now.Sub(c.rivalAt) < rivalMemory {
		ln.contended = now
		c.yield = now.Add(c.spread(now) + c.delay(now))
	}
	m.compete(ln, ln.turn(now))
	m.tidy(ln, now)
}

// pollEvery is how often who hears of no release asks for the key. The longer it has
// been taken, the less often: what is lost between a release and the next time is a
// fraction of how long it was held, and so is what it costs to ask. All managers come
// to about the same, as all saw the holder come.
func (c *contest) pollEvery(now time.Time) time.Duration {
	return max(minPoll, min(now.Sub(c.since)/2, maxPoll))
}

// spread is what the random delays are drawn from. Where somebody polls, it is the
// time from one of his tries to the next: so none of those who hear of a release at once
// is more likely to come first than he is.
func (c *contest) spread(now time.Time) time.Duration {
	if c.polled {
		return max(c.window, c.pollEvery(now))
	}
	return c.window
}

// delay returns a random delay before a try.
func (c *contest) delay(now time.Time) time.Duration { return rand.N(c.spread(now)) }

// seen takes in who has the key, and whether somebody polls for it.
func (c *contest) seen(holder string, v *vote, now time.Time) {
	if c.holder != holder {
		c.holder, c.since = holder, now
	}
	c.polled = slices.ContainsFunc(v.answers, func(a answer) bool { return a.polled })
}

// polls tells whether the line's first hears of no release, and has to ask for the key
// every so often; not of a subscription that is only just being made.
func (m *LockManager) polls(ln *line, now time.Time) bool {
	c := ln.contest
	return c != nil && c.polls && c.heard(m) < m.quorum.majority &&
		(m.opts.keyspace == KeyspaceOff || now.Sub(c.pollAt) > subscribing)
}

// elected: a majority of nodes has the lock's value, and its token.
func (m *LockManager) elected(v *vote, now time.Time) {
	l := v.lock
	b, ln := l.ballot, l.line
	b.rounds, b.splits, b.known = 0, 0, true
	for _, a := range v.answers {
		if a.rival != "" && a.rival != m.id {
			m.contestOf(ln).rivalAt = now
		}
	}
	if c := ln.contest; c != nil {
		c.seen(l.value, v, now)
		c.window = max(c.window/2, minWindow)
	}
	validUntil := v.began.Add(l.ttl - m.drift(l.ttl))
	switch {
	case m.stopping:
		m.abandon(l, ErrClosed)
	case l.ctx.Err() != nil:
		m.abandon(l, contextError(l.ctx, l.failure))
	case now.Before(validUntil):
		m.hold(l, v.token, validUntil, now)
	case l.stale < maxAttempts:
		l.stale++
		m.takeBack(l)
		m.retry(l, now.Add(backoff(int(l.stale))))
	default:
		m.abandon(l, causes(ErrNotAcquired, errLate))
	}
}

// outvoted: the lock got no majority. What it got is given back, and it tries
// again later.
func (m *LockManager) outvoted(v *vote, now time.Time) {
	l := v.lock
	b, ln := l.ballot, l.line
	m.takeBack(l)

	if v.answered() < m.quorum.majority {
		l.failure = v.noMajority()
		if b.rounds++; b.rounds == 1 {
			b.since = v.began
		}
		if b.barred(m.quorum.majority) {
			m.abandon(l, causes(ErrNotAcquired, l.failure)) // to try again would be in vain
			return
		}
		// With a short TTL four votes are over while a busy machine takes a breath.
		patient := !l.try && v.silent() && now.Sub(b.since) < maxPatience
		if !b.known && b.rounds >= maxAttempts && !patient || m.ended != nil {
			m.abandon(l, l.failure)
			return
		}
		m.retry(l, now.Add(backoff(b.rounds)))
		return
	}
	b.rounds, b.known = 0, true
	ln.contended = now
	holder, taken := v.winner(m.quorum.majority)
	if taken {
		b.splits = 0
	} else {
		b.splits++
	}
	if l.try && (taken || b.splits >= maxTrySplits) {
		m.abandon(l, ErrNotAcquired)
		return
	}
	if m.opts.maxQueue > 0 && ln.length > m.opts.maxQueue {
		m.abandon(ln.last, ErrQueueFull)
	}
	c := m.contestOf(ln)
	if m.rivals(v) {
		c.rivalAt = now
	}
	if !ln.watched && !l.try {
		m.watch(ln)
	}
	if taken {
		c.seen(holder, v, now)
	}
	m.retry(l, c.learn(m, v, now, taken))
}

// rivals tells whether anybody but this manager has part in the key.
func (m *LockManager) rivals(v *vote) bool {
	for _, a := range v.answers {
		if a.verdict == no && m.named[[2]string{v.lock.key, a.holder}] == nil {
			return true
		}
	}
	return false
}

// learn takes in what a lost vote tells, and returns when to try again.
func (c *contest) learn(m *LockManager, v *vote, now time.Time, taken bool) time.Time {
	for i, a := range v.answers {
		switch {
		case a.verdict == yes, a.verdict == no && c.freedAt[i].After(v.began):
			c.freeAt[i] = now
		case a.verdict == no && a.lease >= 0:
			c.freeAt[i] = now.Add(a.lease + time.Millisecond)
		default:
			c.freeAt[i] = time.Time{}
		}
	}
	if c.again {
		c.again = false
		return now
	}
	if !taken {
		c.window = min(2*c.window, maxWindow)
		most := c.window << max(0, min(v.lock.ballot.splits, 12)-8)
		return now.Add(rand.N(min(most, maxSplitWindow)))
	}
	c.window = max(c.window/2, minWindow)
	at := now.Add(time.Second)
	polled := c.polls
	if c.polls = c.heard(m) < m.quorum.majority; c.polls {
		if !polled {
			c.pollAt = now
		}
		every := c.pollEvery(now)
		at = now.Add(every/2 + rand.N(every))
	}
	if free := c.majorityFree(m.quorum.majority); !free.IsZero() && free.Before(at) {
		if free.Before(now) {
			free = now
		}
		at = free.Add(c.delay(now))
	}
	return at
}

// heard returns from how many nodes events of the key arrive.
func (c *contest) heard(m *LockManager) (n int) {
	for i, hears := range c.hears {
		if hears && m.shards[i].events.on {
			n++
		}
	}
	return n
}

// majorityFree returns when the key will be free on a majority of nodes, as far as
// is known; zero if it is not.
func (c *contest) majorityFree(majority int) time.Time {
	var known []time.Time
	for _, at := range c.freeAt {
		if !at.IsZero() {
			known = append(known, at)
		}
	}
	if len(known) < majority {
		return time.Time{}
	}
	slices.SortFunc(known, time.Time.Compare)
	return known[majority-1]
}

// retry has the lock compete again at the given time.
func (m *LockManager) retry(l *Lock, at time.Time) {
	if l.state != waiting {
		return
	}
	if !l.try {
		m.compete(l.line, at)
		return
	}
	time.AfterFunc(time.Until(at), func() {
		m.mu.Lock()
		defer m.exitUnlock(context.Background())
		switch {
		case l.state != waiting:
		case m.stopping:
			m.abandon(l, ErrClosed)
		default:
			m.campaign(l)
		}
	})
}

// watching: from here on events of the channel arrive. Those before may have been
// missed.
func (e *events) watching(channel string) {
	m, ln := e.s.m, e.watched[channel]
	if ln == nil || m.closed {
		return
	}
	c := m.contestOf(ln)
	c.hears[slices.Index(m.shards, e.s)] = true
	if c.heard(m) != m.quorum.majority || ln.first == nil {
		return
	}
	if b := ln.first.ballot; b != nil && b.vote != nil {
		c.again = true
	} else {
		m.compete(ln, time.Now())
	}
}

// deaf: no events arrive any more.
func (e *events) deaf() {
	node := slices.Index(e.s.m.shards, e.s)
	for _, ln := range e.watched {
		if ln.contest != nil {
			ln.contest.hears[node] = false
		}
	}
}

// freed takes in an event that says that the key is free on a node. Only a
// majority of nodes wakes the first here, and after a random delay: all other
// managers have heard it too.
func (e *events) freed(channel string) {
	m, ln := e.s.m, e.watched[channel]
	if ln == nil || m.closed {
		return
	}
	now := time.Now()
	c, node := m.contestOf(ln), slices.Index(m.shards, e.s)
	c.freeAt[node], c.freedAt[node] = now, now
	if ln.first == nil || ln.lookAt.IsZero() || ln.lookAt.Sub(now) <= c.spread(now) || c.yield.After(now) {
		return // voting, or about to, or after the others
	}
	if free := c.majorityFree(m.quorum.majority); !free.IsZero() && !free.After(now) {
		m.compete(ln, now.Add(c.delay(now)))
	}
}
