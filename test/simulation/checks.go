package simulation

import (
	"errors"
	"time"

	"github.com/redislock/redislock"
)

// The checks of what callers are told. All run under the network's mutex.

// slack is what messages and timers may take after the healing, beyond what is
// promised.
const slack = 100 * time.Millisecond

// wasGranted checks what the library says as a lock is acquired.
func (t *truth) wasGranted(a *attempt, l *redislock.Lock, r redislock.Result) {
	k, now := a.key, t.now()
	a.lock, a.waiting, a.granted, a.token = l, false, true, r.Token
	until := t.at(r.ValidUntil)
	t.story.add("%s holds %s until %s, token %d", a, k.name, seconds(until), r.Token)
	t.touch(k)
	t.server.store.get(k.name) // expires, if it has to
	switch {
	case a.robbed:
	case k.owner != a:
		t.story.violation("G1: %s is told that it holds %s, which %v holds", a, k.name, k.owner)
	case until > k.expires:
		t.story.violation("G6: %s counts on %s until %s, the key goes at %s", a, k.name, seconds(until), seconds(k.expires))
	}
	if until <= now {
		t.story.violation("G6: %s is told that it holds %s, and its lease is over", a, k.name)
	}
	for _, x := range k.attempts {
		if x == a || !x.granted {
			continue
		}
		if t.believes(x) && !x.robbed && !a.robbed {
			t.story.violation("G1: %s and %s both hold %s", x, a, k.name)
		}
		if (x.since < a.since) != (x.token < a.token) {
			t.story.violation("G10: %s has token %d, %s has token %d, and the order of the grants is another", x, x.token, a, a.token)
		}
	}
}

// wasRefused checks the answer to who did not get the lock.
func (t *truth) wasRefused(a *attempt, err error) {
	a.waiting, a.over = false, t.now()
	t.touch(a.key)
	t.story.add("%s does not get %s: %v", a, a.key.name, err)
	var typed *redislock.Error
	if !errors.As(err, &typed) {
		t.story.violation("%s is told an error of type %T", a, err)
	}
}

// isDone checks that a loss is told, in time if it was asked for, and is one.
func (t *truth) isDone(a *attempt, err error, inTime bool) {
	a.done = true
	if !a.granted || a.unlocked || a.process.gone {
		return
	}
	k, now, until := a.key, t.now(), t.at(a.lock.ValidUntil())
	t.story.add("%s is told that %s is lost: %v", a, k.name, err)
	if inTime && now > until {
		t.story.violation("G7: %s is told of the loss %v after its ValidUntil", a, now-until)
	}
	if !errors.Is(err, redislock.ErrLost) {
		t.story.violation("G7: %s is no longer held, and Err is %v", a, err)
	}
	t.checkValidity(a)
	early := until - min(a.ttl/50, 5*time.Millisecond)
	if t.server.store.get(k.name); now < early && k.owner == a && a.owned == 1 {
		t.story.violation("G8: %s is told that %s is lost, and it never was", a, k.name)
	}
}

// checkValidity checks that a lock does not count on more than Redis grants.
func (t *truth) checkValidity(a *attempt) {
	if until := t.at(a.lock.ValidUntil()); until > a.lease && !a.robbed {
		t.story.violation("G6: %s counts on %s until %s, the lease ends at %s", a, a.key.name, seconds(until), seconds(a.lease))
	}
}

// unlocks is told before Unlock is called.
func (t *truth) unlocks(a *attempt) {
	t.story.add("%s unlocks %s", a, a.key.name)
	if a.granted {
		t.checkValidity(a)
	}
	a.unlocked, a.waiting, a.over = true, false, t.now()
	t.touch(a.key)
}

// wasUnlocked checks the answer of the first Unlock.
func (t *truth) wasUnlocked(a *attempt, err error, took time.Duration) {
	t.story.add("%s has unlocked %s: %v", a, a.key.name, err)
	t.server.store.get(a.key.name)
	// When the manager is closed, Unlock itself sends what is left to send.
	closed := a.process.closing
	if took > a.ttl && !closed {
		t.story.violation("Unlock of %s took %v, more than its TTL %v", a, took, a.ttl)
	}
	lost, notHeld := errors.Is(err, redislock.ErrLost), errors.Is(err, redislock.ErrNotHeld)
	switch {
	case err == nil && !a.ghost:
		if a.key.owner == a {
			t.story.violation("G8: Unlock of %s has returned nil, and it still owns %s", a, a.key.name)
		}
		if a.queued {
			t.story.violation("G9: Unlock of %s has returned nil, and it stands in the line for %s", a, a.key.name)
		}
		// After a failure nobody can know whether the release was run. But it was
		// not if the lease was over before.
		sure := !a.unsure && t.calm(a.over)
		if a.granted && !a.released && !a.robbed && (sure || a.lease < a.over) {
			t.story.violation("G8: Unlock of %s has returned nil, and its lock was not released but %s", a, a.how)
		}
	case err == nil:
	case a.granted && notHeld && !lost:
		t.story.violation("G8: the first Unlock of %s, which was acquired, says: %v", a, err)
	case a.granted && lost && a.released && a.left > a.over && a.owned == 1 && !a.ghost && !closed:
		t.story.violation("G8: Unlock of %s released %s, and says: %v", a, a.key.name, err)
	}
}

// calm tells whether there was no trouble since then. What Redis had refused is
// sent again within a second of the healing.
func (t *truth) calm(since time.Duration) bool {
	return !t.troubled || t.healed != 0 && since > t.healed+time.Second
}

// alive tells whether an attempt waits in a process that runs.
func (a *attempt) alive() bool {
	return a.waiting && !a.try && !a.aside && !a.ended && a.process != nil && !a.process.gone && !a.process.closing
}

// wasFree checks how long a key was free while somebody waited for it.
func (t *truth) wasFree(k *keyTruth) {
	if t.healed == 0 {
		return
	}
	for _, a := range k.attempts {
		if !a.alive() {
			continue
		}
		since := max(k.free, t.healed, a.called, t.excluded(a))
		if idle := t.now() - since; idle > time.Second+slack {
			t.story.violation("G5: %s was free for %v while %s waited", k.name, idle, a)
			return
		}
	}
}

// excluded returns until when a waiter could not be served: he was skipped, or passed
// over, as his process did not listen. He looks when it listens again, or else when the
// lease that he knows of is over.
func (t *truth) excluded(a *attempt) time.Duration {
	switch {
	case !a.skipped && !a.queued:
		return a.excluded
	case t.listens(a.process):
		return min(a.process.listens, a.key.lease)
	}
	return min(t.now(), a.key.lease)
}

// ranOut is told that a lease ended by itself, and checks that it had to.
func (t *truth) ranOut(a *attempt) {
	if t.calm(a.since) && a.alive() && !a.ghost && a.ttl >= slack {
		t.story.violation("G5: %s was the owner of %s for all its lease and was not told", a, a.key.name)
	}
	t.checkLeft(a, min(a.lease, t.now()), "holds")
}

// checkLeft checks that nothing is left of who was done long ago.
func (t *truth) checkLeft(a *attempt, now time.Duration, what string) {
	if a.over != 0 && t.calm(a.over) && now > a.over+slack && !a.ghost && !a.process.gone && !a.process.closing {
		t.story.violation("G9: %s still %s %s, %v after its caller was done", a, what, a.key.name, now-a.over)
	}
}

// touch notes that something happened at a key: who waits there may send.
func (t *truth) touch(k *keyTruth) {
	k.active = t.now()
	clear(k.looks)
}

// looked counts the requests of those who stand in a line where nothing happens.
func (t *truth) looked(a *attempt) {
	k, p := a.key, a.process
	if t.healed == 0 || k.active < t.healed {
		return
	}
	k.looks[p]++
	idle := t.now() - k.active
	allowed := 3 + int(idle/max(k.shortest, 500*time.Millisecond))
	for _, x := range k.attempts {
		if x.process == p && x.waiting {
			allowed++ // who has lost his place joins again, once
		}
	}
	if k.looks[p] > allowed {
		t.story.violation("G11: %s has sent %d requests in %v for those who wait for %s", p, k.looks[p], idle, k.name)
	}
}

// isClean checks what is left in Redis when all processes have closed.
func (t *truth) isClean() {
	for _, key := range t.server.store.keys() {
		if key == fenceKey {
			continue
		}
		k := t.keys[key]
		if k == nil || k.owner == nil || t.excused(k.owner) {
			continue // side keys are looked at below
		}
		t.story.violation("G9: %s of %s is left in Redis", key, k.owner)
	}
	for _, a := range t.attempts {
		if a.queued && !t.excused(a) {
			t.story.violation("G9: %s is left in the queue", a)
		}
	}
}

// excused tells whether something of the attempt may be left until its TTL is
// over.
func (t *truth) excused(a *attempt) bool {
	return a.process == nil || a.process.gone || a.process.unclean || a.ghost || t.troubled && a.over < t.healed
}
