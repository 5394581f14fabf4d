package simulation

import (
	"slices"
	"strings"
	"time"

	"github.com/redislock/redislock"
)

// truth is the reference model: from the changes of the store, in the order in
// which Redis made them, it knows who holds each key and who stands in its line,
// and it checks what the library does and says against that.
type truth struct {
	net      *network
	server   *server
	story    *story
	keys     map[string]*keyTruth
	attempts []*attempt
	byValue  map[string]*attempt

	processes []*process
	joins     int
	setBack   int // how many had joined when the clock was last set back, by a failover
	current   *call
	fence     int64         // as the store holds it; 0: not there
	fenceBy   []*process    // who drew from a fence without a time to live, and has to see to its end
	troubled  bool          // there are faults
	healed    time.Duration // when the last fault had ended and was got over; 0: not yet
}

// keyTruth is what is true of one lock key.
type keyTruth struct {
	name     string
	owner    *attempt
	expires  time.Duration // when the owner's lease ends
	free     time.Duration // since when there is no owner
	lease    time.Duration // when the last lease ended or would have
	unclean  bool          // the last owner went without a release
	slipped  bool          // and a newcomer has used that
	attempts []*attempt
	active   time.Duration    // when something last happened
	looks    map[*process]int // at a line where nothing happened since active
	shortest time.Duration    // TTL of all attempts
}

// An attempt is one acquisition: a call of Lock, TryLock or Do; or of a foreign
// program.
type attempt struct {
	name    string
	process *process // nil: foreign
	key     *keyTruth
	value   string
	ttl     time.Duration
	try     bool
	aside   bool // its caller does not look whether it has the lock
	called  time.Duration
	lock    *redislock.Lock // as soon as it is known

	waiting  bool
	granted  bool // Wait has returned OK
	unlocked bool // Unlock has been called
	done     bool // Done was seen closed
	ended    bool // the caller's context has ended, or its manager was closed

	// In Redis.
	first    int           // in which order the first request joined; 0: not yet
	order    int           // and the one that counts: another if it has joined anew, at the end
	knows    bool          // its place: an answer has told it
	asked    bool          // has joined without saying that it might have before
	queued   bool          // stands in the queue
	skipped  bool          // was taken out of it as its process did not listen
	excluded time.Duration // until when it was so, at last
	owned    int           // how often it became the owner
	since    time.Duration
	token    int64 // what its caller was told
	how      removal
	lease    time.Duration // when the last lease ended or would have
	robbed   bool          // a fault took the key away while it was the owner
	ghost    bool          // a request for it was delivered by a dead connection, or when its caller had gone
	unsure   bool          // an answer about it may have been lost
	released bool          // the last lease ended by its release
	left     time.Duration // when it ended
	over     time.Duration // when its caller was done with it
}

func (a *attempt) String() string { return a.name }

func (t *truth) now() time.Duration { return t.net.now() }

// at turns a time of the library into ours.
func (t *truth) at(when time.Time) time.Duration { return when.Sub(t.net.start) }

func (t *truth) key(name string) *keyTruth {
	k := t.keys[name]
	if k == nil {
		k = &keyTruth{name: name, looks: make(map[*process]int)}
		t.keys[name] = k
	}
	return k
}

// enter notes an attempt. The owner value may be learned only later.
func (t *truth) enter(a *attempt) {
	a.called, a.waiting = t.now(), true
	t.attempts = append(t.attempts, a)
	a.key.attempts = append(a.key.attempts, a)
	if a.key.shortest == 0 || a.ttl < a.key.shortest {
		a.key.shortest = a.ttl
	}
	t.touch(a.key)
	if a.value != "" {
		t.identify(a)
	}
}

func (t *truth) identify(a *attempt) {
	t.byValue[a.value] = a
	if a.value != a.name {
		t.story.call(a.value, a.name)
	}
}

// begin and end enclose each command of a client.
func (t *truth) begin(c *call) { t.current = c }

// running is told of the script, once that is known.
func (t *truth) running(c *call) {
	if c.script == "raise" {
		if c.keys[0] != fenceKey {
			t.story.violation("%s is raised as if it were the fence", c.keys[0])
		}
		return
	}
	if c.script == "probe" {
		return
	}
	values := c.args[:1]
	if c.script == "free" {
		values = c.args
	}
	for _, value := range values {
		t.runningFor(c, value)
	}
}

func (t *truth) runningFor(c *call, value string) {
	a := t.byValue[value]
	if a == nil {
		t.story.violation("a script is run for %s, which nobody has asked for", value)
		return
	}
	if a.process != c.conn.process {
		t.story.violation("G8: %s runs %s for %s, which is not its own", c.conn.process, c.script, a)
	}
	if c.conn.closed || c.script == "acquire" && a.over != 0 {
		a.ghost = true
	}
	if c.script == "acquire" && c.args[6] != "" && c.args[6] != "?" {
		t.looked(a)
	}
}

func (t *truth) end(c *call) {
	if c.toTell != nil {
		t.story.violation("G3: %s is granted %s, and not told", c.toTell, c.toTell.key.name)
	}
	for _, a := range c.popped { // and not made the owner
		a.skipped = true
		if t.listens(a.process) {
			t.story.violation("G4: %s was skipped although its process listens", a)
		}
	}
	if c.script != "" && c.drawn {
		t.scriptHasDrawn(c)
	}
	t.current = nil
}

// listens tells whether Redis thinks that messages reach the process.
func (t *truth) listens(p *process) bool {
	return p.id != "" && t.server.listeners(grantChannel+p.id) > 0
}

const (
	grantChannel = "redislock:grant:"
	fenceKey     = "redislock:fence"
	queueKeys    = "redislock:queue:"
	skippedKeys  = "redislock:skipped:"
	probeKey     = "redislock:probe"
)

func isSideKey(key string) bool { return strings.HasPrefix(key, "redislock:") }

// fenceLag is how far the tokens of scripts that grant may be behind the clock.
const fenceLag = 10 * time.Millisecond

// fenceWasSet is told that a token was drawn, or by a script perhaps only begun to
// be: what counts is what it leaves. A claim draws from what it finds, and may find
// none.
func (t *truth) fenceWasSet(value string, expires int64) {
	before, c := t.fence, t.current
	t.fence = integer(value)
	if t.fence <= before {
		t.story.violation("G10: %s sets the fence from %d to %d", c.name, before, t.fence)
	}
	c.drawn, c.fenceEnds = true, expires != 0
	if expires != 0 {
		t.fenceBy = nil
	} else if c.conn != nil && !c.conn.closed { // else a dead connection has delivered it
		t.fenceBy = append(t.fenceBy, c.conn.process)
	}
}

// scriptHasDrawn looks at what a script has left of the fence: a token that is not
// below the clock, or hardly, and goes at last.
func (t *truth) scriptHasDrawn(c *call) {
	clock := t.server.clock()
	if c.script != "raise" {
		clock -= fenceLag
	}
	switch {
	case t.fence < clock.Microseconds():
		t.story.violation("G10: %s draws %d while the server's clock shows %d", c.script, t.fence, t.server.clock().Microseconds())
	case !c.fenceEnds:
		t.story.violation("G9: %s leaves the fence without a time to live", c.script)
	}
}

// wasSet is told that a key has a new owner.
func (t *truth) wasSet(key, value string, expires int64, absent bool) {
	if key == fenceKey {
		t.fenceWasSet(value, expires)
	}
	if isSideKey(key) {
		return
	}
	k, a, c := t.key(key), t.byValue[value], t.current
	t.touch(k)
	if a == nil {
		t.story.violation("G8: %s is set to %s, which nobody has asked for", key, value)
		return
	}
	if expires == 0 {
		t.story.violation("%s is set to %s without a time to live", key, a)
	}
	if c.conn != nil && (c.conn.closed || c.name == "SET" && a.over != 0) {
		a.ghost = true
	}
	if old := k.owner; old != nil {
		switch {
		case c.byFault:
			old.robbed = true
		case c.script != "release" || c.args[0] != old.value:
			t.story.violation("G8: %s overwrites the lock of %s with %s", c.name, old, a)
		case c.conn.process != old.process:
			t.story.violation("G8: %s hands over the lock of %s, which is not its own", c.conn.process, old)
		}
		t.leave(k, !c.byFault)
	} else {
		t.wasFree(k)
	}
	t.checkOrder(k, a, c)
	c.popped = slices.DeleteFunc(c.popped, func(x *attempt) bool { return x == a })
	k.owner, k.expires = a, t.server.when(expires)
	a.owned++
	a.since = t.now()
	a.lease, a.how, a.released = k.expires, "", false
	if !absent || !k.unclean {
		k.unclean, k.slipped = false, false
	}
	t.server.expireLater(expires)
}

// wasRemoved is told that a key has no owner any more.
func (t *truth) wasRemoved(key, value string, how removal, expires int64) {
	if key == fenceKey {
		t.fence, t.fenceBy = 0, nil
	}
	if isSideKey(key) {
		return
	}
	k, c := t.key(key), t.current
	a := k.owner
	t.touch(k)
	if a == nil {
		t.story.violation("model: %s had no owner", key)
		return
	}
	a.how = how
	k.free, k.unclean, k.slipped = t.now(), true, false
	switch {
	case how == expired:
		k.free = t.server.when(expires)
		t.story.add("%s: the lease of %s has ended at %s", key, a, seconds(k.free))
		if a.process != nil {
			t.ranOut(a)
		}
		t.leave(k, false)
	case how == flushed || c.byFault:
		a.robbed = true
		k.free = k.expires // nobody need notice earlier
		t.leave(k, false)
	case c.conn == nil: // a foreign program's owner-checked delete
		k.free = k.expires
		if a.process != nil {
			t.story.violation("model: a foreign program deletes %s", a)
		}
		t.leave(k, true)
	default:
		k.unclean = false
		if !c.releases(key, value) {
			t.story.violation("G8: %s deletes the lock of %s", c.name, a)
		}
		for _, x := range k.attempts {
			switch {
			case !x.queued:
			case t.listens(x.process):
				t.story.violation("G3: %s is freed by a release while %s stands in the line", key, x)
			default:
				k.unclean = true // nobody in the line could be told
			}
		}
		t.leave(k, true)
	}
}

// leave ends the owner's lease in the model.
func (t *truth) leave(k *keyTruth, release bool) {
	a := k.owner
	k.owner = nil
	k.lease = k.expires
	a.released, a.left = release && a.process != nil, t.now()
	if !a.robbed && t.believes(a) {
		t.story.violation("G1: %s loses %s, which it has not given back and believes to hold until %s",
			a, k.name, seconds(t.at(a.lock.ValidUntil())))
	}
}

// failedOver is told that another server is the master, whose clock says when keys
// expire. If it is ahead of the other one's, leases end earlier than was promised:
// that is known of failovers.
func (t *truth) failedOver(ahead time.Duration) {
	if ahead < 0 {
		t.setBack = t.joins
	}
	for _, k := range t.keys {
		t.touch(k)
		e := t.server.store.entries[k.name]
		if k.owner == nil || e == nil {
			continue
		}
		k.owner.robbed = k.owner.robbed || ahead > 0
		k.expires = t.server.when(e.expires)
		k.owner.lease = k.expires
		t.server.expireLater(e.expires)
	}
	for _, p := range t.processes {
		if t.listens(p) { // once more
			p.listens = t.now()
		}
	}
}

func (t *truth) wasProlonged(key, value string, expires int64) {
	if isSideKey(key) {
		return
	}
	k, c := t.key(key), t.current
	if c.script != "extend" || k.owner == nil || c.args[0] != k.owner.value {
		t.story.violation("G8: %s changes the lease of %v", c.name, k.owner)
		return
	}
	when := t.server.when(expires)
	if when < k.expires {
		t.story.violation("the lease of %s is shortened", k.owner)
	}
	k.expires = when
	k.owner.lease = when
	t.touch(k)
	t.server.expireLater(expires)
}

// believes tells whether a caller was told that he holds the lock, has not let
// go of it, and has not been told of its loss.
func (t *truth) believes(a *attempt) bool {
	return a.granted && !a.unlocked && !a.done && a.process != nil && !a.process.gone &&
		t.now() < t.at(a.lock.ValidUntil())
}
