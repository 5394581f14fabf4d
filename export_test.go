package redislock

import (
	"crypto/sha1"
	"encoding/hex"
	"time"
)

// What tests of the package's surface need to see behind it.

var (
	KeysOf = func(lock string) (queue, shortest string) {
		k := keysOf(lock)
		return k.queue, k.shortest
	}
	MissingFlags = missingFlags
	ScriptText   = textOf
)

const (
	FenceKey    = fenceKey
	SkippedKeys = skippedKeys
	NoiseLimit  = noiseLimit
)

// Idle tells whether the manager keeps nothing in memory for any lock, but for requests
// under way that were answered before, over another connection.
func (m *LockManager) Idle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	waiters := 0
	m.allLines(func(ln *line) { waiters += ln.length + ln.acquiring })
	for _, s := range m.shards {
		waiters += s.backlog()
		for _, b := range s.inFlight {
			for _, o := range b.ops {
				if o.copies == nil || !o.copies.settled {
					waiters++
				}
			}
		}
	}
	return waiters == 0 && len(m.tickets) == 0 && len(m.named) == 0 && len(m.renewals.due) == 0
}

// Remembered returns how many locks the manager can find by their names.
func (m *LockManager) Remembered() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.tickets) + len(m.named)
}

// HasHeard tells whether an event of the key that frees nothing has come, and no
// look at the key is under way.
func (m *LockManager) HasHeard(key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	ln := m.slotOf(key).lines[key]
	return ln != nil && ln.noise > 0 && ln.acquiring == 0 && !ln.lookAgain
}

// Watches tells whether the manager is subscribed to the events of a key.
func (m *LockManager) Watches(key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	ln := m.slotOf(key).lines[key]
	return ln != nil && ln.watched && ln.slot.at != nil && len(ln.slot.at.events.changed) == 0
}

// Away returns how many nodes of a quorum are not waited for.
func (m *LockManager) Away() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.shards {
		if s.away(time.Now(), maxVoteTimeout) {
			n++
		}
	}
	return n
}

// Requests returns how many requests are kept: under way, or to be sent.
func (m *LockManager) Requests() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.shards {
		n += s.backlog() + s.refused.length
		for _, b := range s.inFlight {
			n += len(b.ops)
		}
	}
	return n
}

// Hears returns from how many nodes of a quorum events of the key arrive.
func (m *LockManager) Hears(key string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	ln := m.slotOf(key).lines[key]
	if ln == nil || ln.contest == nil {
		return 0
	}
	return ln.contest.heard(m)
}

// ScriptDigest returns what EVALSHA calls a script by.
func ScriptDigest(name string) string {
	sum := sha1.Sum([]byte(textOf(name)))
	return hex.EncodeToString(sum[:])
}

// Listens tells whether the manager takes itself to hear of grants of the key.
func (m *LockManager) Listens(key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.slotOf(key).ready
}

// Surveys tells whether the manager looks for the servers that its slots are at.
func (m *LockManager) Surveys() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.topology.surveying
}

// LookAt has the line of a key looked after now.
func (m *LockManager) LookAt(key string) {
	m.mu.Lock()
	defer m.exit()
	m.look(m.slotOf(key).lines[key])
}
