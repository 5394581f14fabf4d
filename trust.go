package redislock

import (
	"log/slog"
	"time"
)

// A subscription that was made, and whose server answers every ping, may be of no
// use: the keys can have moved to another server since, by a failover, behind one
// address or by a proxy, while the old one lives on. It has become a replica then,
// and delivers what the new master publishes, although that counts nobody who listens.
// So a grant says that the key was given to a waiter, and does not say when, by the
// clock that is known here.
//
// Invariant: a grant is believed only if, since the subscription was made and since
// anything happened that may have to do with another server, the server that takes
// the writes has said that it hears this manager. Any other grant is confirmed by
// asking. Whether it is believed or not, nobody else was told the same token.

// trust is what is known of a slot's grant channel. Guarded by the manager's mutex.
type trust struct {
	heard   bool      // the server said so, and nothing has happened since
	at      time.Time // when it was last asked
	epoch   uint32    // how often that has ended: times of its clock from before are of another
	probing bool      // a probe is under way
	refused bool      // the last probe was
	deaf    int       // subscriptions in a row that it did not hear
	told    bool      // the log has been

	doubted time.Time // the answers to what was sent before count for nothing here
}

const (
	// probeAfter is how often a subscription that somebody needs is probed.
	probeAfter = 10 * time.Second

	// maxDeaf is how many subscriptions in a row may turn out not to be heard before
	// it is said aloud, and the lines are looked after by the clock.
	maxDeaf = 2
)

// doubt has every grant confirmed until the server has said once more that it hears
// this manager. The caller holds m.mu, as for all here.
//
// What is still on its way may be the answer of the server of before. It tells neither
// that the manager is heard nor what the clock shows.
func (s *shard) doubt() {
	s.clock, s.doubted = clock{}, time.Now()
	for _, sl := range s.events.slots {
		sl.doubt()
	}
	s.events.doubted = true
}

// mayHaveMoved has grants doubted after a failure that may come of a move of the keys
// to another server.
func (s *shard) mayHaveMoved(o *op, err error) {
	switch classify(err) {
	case elsewhere:
		o.lock.line.slot.doubt()
		s.events.doubted = true
	case changing, replica, unsent, unanswered, clientEnded:
		if code, _ := answered(err); code != "TRYAGAIN" { // the slot is about to move, and has not
			s.doubt()
		}
	}
}

// observe takes in a reading of the server's clock.
func (s *shard) observe(sent, received time.Time, server time.Duration) {
	if sent.Before(s.doubted) {
		return
	}
	if s.clock.contradicts(sent, received, server) {
		s.doubt() // another server answers now, or its clock was set
	}
	s.clock.observe(sent, received, server)
}

func (sl *slot) doubt() {
	sl.trust.heard, sl.trust.doubted = false, time.Now()
	sl.trust.epoch++
}

// wasSeen notes when, by the server's clock, the lock stood in the line.
func (l *Lock) wasSeen(o *op, server time.Duration) {
	if t := &l.line.slot.trust; !o.sent.Before(t.doubted) {
		l.asOf, l.epoch = server, t.epoch
	}
}

// probe asks the server of a slot whether it hears this manager.
func (m *LockManager) probe(sl *slot) {
	if !sl.trust.probing && sl.ready && !m.closed && m.ended == nil {
		sl.trust.probing = true
		m.submit(&op{kind: opProbe, lock: &Lock{manager: m, line: newLine(sl.key, sl)}})
	}
}

// probeAll probes all slots that are to be: whose grants are in doubt, or were last
// confirmed long ago while somebody waits for one.
func (e *events) probeAll(now time.Time) {
	e.doubted = false
	for _, sl := range e.slots {
		t := &sl.trust
		switch rest := now.Sub(t.at); {
		case t.heard && (rest < probeAfter || !sl.wanted()):
		case !t.heard && (t.refused && rest < time.Second || t.deaf >= maxDeaf && rest < probeAfter):
			e.doubted = true
		default:
			e.s.m.probe(sl)
		}
	}
}

// probed takes in the answer of probe.lua.
//
// Invariant: heard means that one server, the one by whose clock grants are dated, has
// said so since the last doubt.
func (m *LockManager) probed(o *op, s *shard, err error, now time.Time) {
	sl := o.lock.line.slot
	t := &sl.trust
	t.probing, t.refused, t.at = false, err != nil, o.sent
	var receivers int64
	var server time.Duration
	if err == nil {
		receivers, server, err = decodeProbe(o.cmd.Val())
	}
	if err == nil && !o.follow {
		s.observe(o.sent, now, server) // which may find that it is another one's
	}
	switch {
	case sl.at == nil || !sl.ready:
	case err != nil:
		sl.at.events.doubted = true // asked again with the next answer
	case o.sent.Before(sl.readyAt), o.sent.Before(t.doubted):
		m.probe(sl) // it was about the subscription before, or the server
	case o.follow:
		// Answered by a server that the slot is on its way to, or has come to: the
		// topology is looked at for that, and the subscription moves.
	case receivers > 0:
		if t.deaf >= maxDeaf {
			m.warn("Redis hears this manager again")
		}
		t.heard, t.deaf = true, 0
	case receivers < 0:
		// Grants are confirmed one by one, which is safe.
		if !t.told {
			t.told = true
			m.warn("the user lacks the right +pubsub|numsub, in a cluster +pubsub|shardnumsub: " +
				"each lock that is handed over costs a round trip more, and waiters that died cost their TTL")
		}
	default:
		t.deaf++
		m.deafened(sl)
	}
}

// deafened has a slot's channel subscribed to anew that the server does not hear. If
// that does not help, as where a proxy leads subscriptions elsewhere, it is tried
// again now and then, and lookBy has the lines looked after by the clock.
func (m *LockManager) deafened(sl *slot) {
	if sl.trust.deaf == maxDeaf {
		m.logLater(slog.LevelError, "Redis does not hear this manager, although it is subscribed: waiters of other processes pass its own. "+
			"Is there a proxy, or a client that subscribes at a replica?", nil)
	}
	if m.topology != nil {
		sl.at.events.astray(sl)
	} else {
		sl.at.events.renew()
	}
}

// renew has everything subscribed to anew over another connection.
func (e *events) renew() {
	if ps := e.pubsub; ps != nil {
		e.s.m.later = append(e.s.m.later, func() { _ = ps.Close() }) // which may have to wait for a dial
	}
}

// isOf tells whether a time of the server's clock can be compared with that at which
// the lock was last seen waiting.
func (l *Lock) isOf(sl *slot) bool { return l.epoch == sl.trust.epoch }
