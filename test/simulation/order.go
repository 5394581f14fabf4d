package simulation

import (
	"slices"
	"strings"
	"time"
)

// What is true of the lines, and whose turn it is.

// checkOrder checks that it is the attempt's turn.
func (t *truth) checkOrder(k *keyTruth, a *attempt, c *call) {
	if c.byFault {
		return
	}
	if c.script != "" && a.process != c.conn.process {
		c.toTell = a
		if !t.listens(a.process) {
			t.story.violation("G4: %s is granted %s, and its process is gone", a, k.name)
		}
	}
	for _, x := range k.attempts {
		t.checkPlace(k, a, x)
		switch {
		case x.ghost || a.ghost: // has the place of some old request
		case x == a || !x.queued || a.order != 0 && a.order < x.order:
		case x.order <= t.setBack && a.order > t.setBack: // by clocks that cannot be compared
		case a.order != 0 && c.name != "SET":
			t.story.violation("G2: %s is granted %s before %s, who joined the line earlier", a, k.name, x)
		case !x.waiting || !t.listens(x.process):
		case c.name == "SET" && k.unclean && !k.slipped:
			k.slipped = true
			t.story.add("%s slips in before those who wait for %s", a, k.name)
			return
		default:
			t.story.violation("G2: newcomer %s is granted %s while %s stands in the line", a, k.name, x)
		}
	}
}

// checkPlace checks that a waiter who was skipped, as its process did not listen,
// is back in its place soon after the process listens again.
func (t *truth) checkPlace(k *keyTruth, a, x *attempt) {
	if x.process == nil {
		return
	}
	listening, soon := t.now()-x.process.listens, time.Second
	if t.calm(x.process.listens) {
		soon = slack
	}
	if x != a && x.alive() && x.skipped && (a.order == 0 || x.order < a.order) &&
		t.listens(x.process) && x.process.listens > t.healed && (t.healed != 0 || !t.troubled) &&
		listening > soon && t.now()-x.since > time.Second {
		t.story.violation("G4: %s is granted %s before %s, who joined the line earlier, was skipped, and listens again for %v",
			a, k.name, x, listening)
	}
}

// member finds the attempt that a queue member names.
func (t *truth) member(member string) *attempt {
	parts := strings.SplitN(member, ":", 4)
	if len(parts) != 4 {
		return nil
	}
	return t.byValue[parts[3]]
}

func (t *truth) hasJoined(key, member string) {
	name, isQueue := strings.CutPrefix(key, queueKeys)
	if !isQueue {
		return
	}
	a := t.member(member)
	if a == nil {
		t.story.violation("%s joins %s, and nobody has asked for that", member, key)
		return
	}
	if t.putBack(a) {
		return
	}
	// Who does not know his place, as the answer was lost, cannot claim it again
	// after the line was lost as well. A request that was long under way may come
	// when its caller has gone, or after another that was sent in its place.
	c := t.current
	fresh := c.args[6] == ""
	if fresh && a.knows && a.waiting && !c.conn.closed {
		if a.asked {
			t.story.violation("G2: %s joins the line for %s at its end, and knew its place in it", a, a.key.name)
		}
		a.ghost = true
	}
	a.asked = a.asked || fresh
	skipped := t.server.store.entries[skippedKeys+name]
	atTheEnd := fresh || c.args[6] == "?" && (skipped == nil || skipped.scores[member] == 0)
	if a.order == 0 || atTheEnd {
		t.joins++
		a.order = t.joins
	}
	if a.first == 0 {
		a.first = a.order
	}
	a.excluded = t.excluded(a)
	a.queued, a.skipped = true, false
	t.touch(a.key)
}

// putBack tells whether a member that is added was popped by the same script, which has
// found that it cannot be told.
func (t *truth) putBack(a *attempt) bool {
	at := slices.Index(t.current.popped, a)
	if at < 0 {
		return false
	}
	t.current.popped = slices.Delete(t.current.popped, at, at+1)
	a.queued = true
	return true
}

// wasPutBack is told that a member of a queue got another place: its first one, which
// it had not known as it joined anew.
func (t *truth) wasPutBack(key, member string) {
	if a := t.member(member); strings.HasPrefix(key, queueKeys) && a != nil && t.current.args[6] != "" && t.current.args[6] != "?" {
		a.order = a.first
	}
}

func (t *truth) hasLeft(key, member string, how removal) {
	a := t.member(member)
	if !strings.HasPrefix(key, queueKeys) || a == nil {
		return
	}
	a.queued = false
	t.touch(a.key)
	switch how {
	case popped:
		t.checkLeft(a, t.now(), "waits for")
		t.current.popped = append(t.current.popped, a)
	case expired:
		if a.waiting && !a.process.gone {
			t.story.violation("G9: the line of %s expires while %s waits", a.key.name, a)
		}
	case deleted:
		if a.alive() && t.current.script == "release" {
			t.story.violation("G4: %s loses its place while it waits", a)
		}
	}
}

// doubt notes that a request was given up unanswered.
func (t *truth) doubt(args []string) {
	var values []string
	switch strings.ToUpper(args[0]) {
	case "EVAL", "EVALSHA":
		values = args[3+integer(args[2]):] // what is no value there is nobody's
	case "SET":
		values = args[2:3]
	}
	for _, value := range values {
		if a := t.byValue[value]; a != nil {
			a.unsure = true
		}
	}
}

// placed returns what is to be done when the answer to somebody who joined has
// arrived.
func (t *truth) placed(args []string, reply any) func() {
	if fields, ok := reply.([]any); ok && len(fields) > 6 && strings.HasPrefix(strings.ToUpper(args[0]), "EVAL") {
		if a := t.byValue[args[3+integer(args[2])]]; a != nil {
			return func() { a.knows = true }
		}
	}
	return nil
}

// subscribes is told that a process begins to listen. It tells the id of its
// manager by that, and has to look at every line.
func (t *truth) subscribes(p *process, channel string, atMaster bool) {
	if id, ok := strings.CutPrefix(channel, grantChannel); ok && p.id == "" {
		p.id = id
		t.story.call(id, "manager "+p.name)
	}
	if channel == grantChannel+p.id && atMaster {
		p.listens = t.now()
	}
	for _, k := range t.keys {
		delete(k.looks, p)
	}
}
