package redislock

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// newHeard returns a manager that sends nothing, a lock of it that stands in line,
// and the grant that makes it the holder. The server has said that it hears it.
func newHeard(t *testing.T) (*LockManager, *Lock, grant) {
	m, l := newStill(t, "key")
	m.mu.Lock()
	t.Cleanup(m.mu.Unlock)
	s, sl, now := m.shards[0], l.line.slot, time.Now()
	s.events.slots[sl.channel] = sl
	sl.ready, sl.readyAt = true, now.Add(-time.Second)
	sl.trust.heard, sl.trust.at = true, now
	l.epoch, l.asOf = sl.trust.epoch, time.Hour
	s.clock.observe(now, now, time.Hour)
	return m, l, grant{token: 1, server: time.Hour + time.Millisecond, seq: l.seq, key: l.key, value: l.value}
}

func (s *sender) take() []*op {
	var ops []*op
	for s.backlog() > 0 {
		ops = append(ops, s.pending.pop())
	}
	return ops
}

// requireAsked checks that the lock's manager asks whether it holds, and believes
// nothing until then.
func requireAsked(t *testing.T, m *LockManager, l *Lock, why string) {
	t.Helper()
	require.Equal(t, waiting, l.state, why)
	for _, o := range m.shards[0].take() {
		if o.kind == opAcquire && o.lock == l {
			return
		}
	}
	t.Fatal(why + ": a grant was neither believed nor confirmed")
}

func TestGrantIsBelievedFromAServerThatHearsUs(t *testing.T) {
	m, l, g := newHeard(t)
	m.grantedElsewhere(g, m.shards[0], time.Now())
	require.Equal(t, held, l.state)
	require.EqualValues(t, 1, l.token)
}

// After anything that may have to do with another server a grant is confirmed.
func TestGrantIsConfirmedAfterWhateverMayBeAMove(t *testing.T) {
	probe := func(m *LockManager, l *Lock) *op {
		return &op{kind: opProbe, lock: &Lock{manager: m, line: newLine("", l.line.slot)}}
	}
	for what, happens := range map[string]func(m *LockManager, l *Lock){
		"READONLY": func(m *LockManager, l *Lock) {
			m.shards[0].mayHaveMoved(probe(m, l), refusal("READONLY You can't write against a read only replica."))
		},
		"MASTERDOWN": func(m *LockManager, l *Lock) {
			m.shards[0].mayHaveMoved(probe(m, l), refusal("MASTERDOWN Link with MASTER is down"))
		},
		"MOVED": func(m *LockManager, l *Lock) { m.shards[0].mayHaveMoved(probe(m, l), refusal("MOVED 1 127.0.0.1:1")) },
		"a connection that failed": func(m *LockManager, l *Lock) {
			m.shards[0].mayHaveMoved(probe(m, l), errors.New("read: connection reset by peer"))
		},
		"a clock that cannot be the same": func(m *LockManager, l *Lock) {
			now := time.Now()
			m.shards[0].observe(now, now, time.Hour+5*time.Second)
		},
		"the server passed us over": func(m *LockManager, l *Lock) {
			m.mu.Unlock()
			m.shards[0].events.passedOver(l.line.slot.channel, "another")
			m.mu.Lock()
			m.shards[0].resumeAt = time.Now().Add(time.Hour)
		},
	} {
		m, l, g := newHeard(t)
		happens(m, l)
		m.grantedElsewhere(g, m.shards[0], time.Now())
		requireAsked(t, m, l, what)
	}
}

type refusal string

func (r refusal) Error() string { return string(r) }
func (refusal) RedisError()     {}

// What says nothing about the server leaves the grants as they are.
func TestGrantIsBelievedAfterARefusal(t *testing.T) {
	m, l, g := newHeard(t)
	m.shards[0].mayHaveMoved(&op{kind: opAcquire, lock: l}, refusal("OOM command not allowed when used memory > 'maxmemory'."))
	m.grantedElsewhere(g, m.shards[0], time.Now())
	require.Equal(t, held, l.state)
}

// A server that hears us may be another than that by whose clock a waiter was last
// seen in the line: which came first cannot be told.
func TestGrantOlderThanAnotherServersClockIsConfirmed(t *testing.T) {
	m, l, g := newHeard(t)
	sl := l.line.slot
	sl.doubt()
	sl.trust.heard = true
	l.asOf = g.server + time.Hour // by the other one's
	m.grantedElsewhere(g, m.shards[0], time.Now())
	requireAsked(t, m, l, "the clock of another server")

	m, l, g = newHeard(t)
	l.line.slot.doubt()
	o := &op{kind: opRelease, lock: m.ghost("key", "another"), cmd: newCommand()}
	o.cmd.SetVal([]any{int64(3), "3600", "1", "7", int64(2), l.value})
	m.released(o, nil, time.Now())
	requireAsked(t, m, l, "handed over by the reply of another server")
	_ = g
}

// The answer to a probe, and what follows.
func TestProbe(t *testing.T) {
	answer := func(m *LockManager, sl *slot, sent time.Time, v any, err error) {
		o := &op{kind: opProbe, lock: &Lock{manager: m, line: newLine("", sl)}, sent: sent, cmd: newCommand()}
		o.cmd.SetVal([]any{v, "3600", "0"})
		sl.trust.probing = true
		m.shards[0].clock, m.shards[0].doubted, sl.trust.doubted = clock{}, time.Time{}, time.Time{}
		m.probed(o, m.shards[0], err, sent)
	}
	renewed := func(m *LockManager) bool { // or is to be
		n := len(m.later)
		m.later = nil
		return n > 0
	}
	m, l, _ := newHeard(t)
	e, sl := &m.shards[0].events, l.line.slot
	e.pubsub = nowhere.Subscribe(t.Context())
	t.Cleanup(func() { e.pubsub.Close() })
	now := time.Now()

	sl.doubt()
	answer(m, sl, sl.readyAt.Add(-time.Millisecond), int64(1), nil)
	require.False(t, sl.trust.heard, "it was about the subscription before")
	require.True(t, sl.trust.probing, "and is asked again")

	answer(m, sl, now, int64(1), nil)
	require.True(t, sl.trust.heard)
	require.False(t, renewed(m))

	sl.doubt()
	answer(m, sl, now, nil, refusal("NOPERM"))
	require.False(t, sl.trust.heard)
	require.True(t, e.doubted, "asked again with the next answer")
	e.probeAll(now)
	require.False(t, sl.trust.probing, "but not with each")
	e.probeAll(now.Add(2 * time.Second))
	require.True(t, sl.trust.probing)

	answer(m, sl, now, int64(-1), nil)
	require.False(t, sl.trust.heard, "where it is forbidden to ask, grants are confirmed")
	require.Len(t, m.later, 1, "and it is said")
	m.later = nil
	answer(m, sl, now, int64(-1), nil)
	require.Empty(t, m.later, "once")

	answer(m, sl, now, int64(0), nil)
	require.True(t, renewed(m), "not heard: subscribed anew")
	require.Zero(t, sl.trust.deaf-1)
	answer(m, sl, now, int64(0), nil)
	require.Len(t, m.later, 2, "twice in a row: said aloud, too")
	m.later = nil
	l.line.lookAt = time.Time{}
	m.lookBy(l.line, now, time.Hour)
	require.WithinDuration(t, now.Add(unboundedLook), l.line.lookAt, 10*time.Millisecond, "and looked after by the clock")
	e.probeAll(now.Add(2 * time.Second))
	require.False(t, sl.trust.probing)
	e.probeAll(now.Add(probeAfter))
	require.True(t, sl.trust.probing, "tried again now and then")
	answer(m, sl, now.Add(probeAfter), int64(1), nil)
	require.True(t, sl.trust.heard)
	require.Zero(t, sl.trust.deaf)
}

// A probe that a cluster has led to another server says nothing about the one that
// the subscription is at.
func TestProbeThatWasRedirectedTellsNothing(t *testing.T) {
	m, l, _ := newHeard(t)
	sl := l.line.slot
	sl.doubt()
	o := &op{kind: opProbe, lock: &Lock{manager: m, line: newLine("", sl)}, sent: time.Now(), cmd: newCommand(), follow: true}
	o.cmd.SetVal([]any{int64(0), "3600", "0"})
	m.probed(o, m.shards[0], nil, time.Now())
	require.False(t, sl.trust.heard)
	require.Zero(t, sl.trust.deaf)
}

// Who waits has the subscription probed while nothing comes of it.
func TestSubscriptionIsProbedWhileSomebodyWaits(t *testing.T) {
	m, l, g := newHeard(t)
	e, sl := &m.shards[0].events, l.line.slot
	now := time.Now()
	e.probeAll(now.Add(probeAfter - time.Second))
	require.False(t, sl.trust.probing)
	e.probeAll(now.Add(probeAfter))
	require.True(t, sl.trust.probing)

	sl.trust.probing = false
	m.grantedElsewhere(g, m.shards[0], now.Add(probeAfter)) // which never is silent
	require.True(t, sl.trust.probing)

	sl.trust.probing = false
	l.line.remove(l)
	e.probeAll(now.Add(2 * probeAfter))
	require.False(t, sl.trust.probing, "nobody waits")
}

func TestReadingsOfOneClockDoNotContradictEachOther(t *testing.T) {
	const epoch = 1795315007 * time.Second
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	var c clock
	require.False(t, c.contradicts(at(0), at(5), epoch), "nothing is known yet")
	c.observe(at(0), at(5), epoch)
	for _, test := range []struct {
		sent, received int
		server         time.Duration // since the epoch
		contradicts    bool
	}{
		{10, 12, 7 * time.Millisecond, false}, // the bounds: 5 to 12 ms have passed
		{10, 12, 12 * time.Millisecond, false},
		{10, 12, 3 * time.Millisecond, true},
		{10, 12, 14 * time.Millisecond, true},
		{1, 2, 0, false}, // sent while the first was under way
		{1, 2, -6 * time.Millisecond, true},
		{10000, 10001, 10005 * time.Millisecond, false}, // rates differ by up to 0.1 %
		{10000, 10001, 10020 * time.Millisecond, true},
		{10, 60_000, time.Millisecond * 30_000, false}, // this process slept
	} {
		require.Equal(t, test.contradicts, c.contradicts(at(test.sent), at(test.received), epoch+test.server), "%+v", test)
	}
}

var _ redis.Error = refusal("")

// What was on its way as the doubt came may be the answer of the server of before: it
// says neither that the manager is heard, nor what the clock shows, nor when a waiter
// was seen in the line by it.
func TestAnswersFromBeforeTheDoubtCountForNothing(t *testing.T) {
	m, l, g := newHeard(t)
	s, sl := m.shards[0], l.line.slot
	before := time.Now()
	time.Sleep(time.Millisecond)
	s.doubt()

	o := &op{kind: opProbe, lock: &Lock{manager: m, line: newLine("", sl)}, sent: before, cmd: newCommand()}
	o.cmd.SetVal([]any{int64(1), "3600", "0"})
	sl.trust.probing = true
	m.probed(o, s, nil, time.Now())
	require.False(t, sl.trust.heard)
	require.True(t, sl.trust.probing, "it is asked anew")
	require.False(t, s.clock.known())

	l.wasSeen(&op{sent: before}, time.Hour)
	require.False(t, l.isOf(sl))
	m.grantedElsewhere(g, s, time.Now())
	requireAsked(t, m, l, "an answer from before the doubt")
}

// The clock that grants are dated by is that of the server which says that it hears the
// manager. If another one's was known, the doubt begins anew.
func TestServerThatHearsUsIsTheOneWhoseClockIsKnown(t *testing.T) {
	m, l, g := newHeard(t)
	s, sl := m.shards[0], l.line.slot
	o := &op{kind: opProbe, lock: &Lock{manager: m, line: newLine("", sl)}, sent: time.Now(), cmd: newCommand()}
	o.cmd.SetVal([]any{int64(1), "3605", "0"}) // 5 s ahead
	m.probed(o, s, nil, time.Now())
	require.False(t, sl.trust.heard)
	require.True(t, sl.trust.probing)
	m.grantedElsewhere(g, s, time.Now())
	requireAsked(t, m, l, "a clock that is not the known one")
}

// A look that crosses with the grant finds the key with the waiter's own value, and takes
// it for another's where the caller has chosen it. When the grant is heard it asks again.
func TestGrantOfAChosenValueThatCrossesWithALook(t *testing.T) {
	for name, arrives := range map[string]func(m *LockManager, l *Lock, g grant){
		"by message": func(m *LockManager, l *Lock, g grant) { m.grantedElsewhere(g, m.shards[0], time.Now()) },
		"by an own release": func(m *LockManager, l *Lock, g grant) {
			o := &op{kind: opRelease, lock: m.ghost("key", "another"), cmd: newCommand()}
			o.cmd.SetVal([]any{int64(3), "3600", "1000", "7", int64(2), l.value})
			m.released(o, nil, time.Now())
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, l, g := newHeard(t)
			l.asOf = g.server + time.Second // of the look
			arrives(m, l, g)
			require.Equal(t, waiting, l.state, "a random value has been lost in between")
			require.Empty(t, m.shards[0].take())

			m, l, g = newHeard(t)
			l.options.value = l.value
			l.asOf = g.server + time.Second
			arrives(m, l, g)
			require.True(t, l.mayOwn())
			requireAsked(t, m, l, "a chosen value")

			m, l, g = newHeard(t)
			l.options.value = l.value
			l.asOf = g.server + l.ttl
			arrives(m, l, g)
			require.False(t, l.mayOwn(), "that lease is over")
			require.Empty(t, m.shards[0].take())
		})
	}
}
