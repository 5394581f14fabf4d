package aof

import "strings"

// Kind says what happened to a lock key or its queue.
type Kind int

const (
	Set      Kind = iota + 1 // the key got a value: Value, Deadline, Over, FromQueue
	Prolong                  // the deadline moved: Value, Deadline
	Delete                   // DEL: by an owner
	Unlink                   // UNLINK: expired, or evicted
	Replace                  // only of Hold.End: another value was set over it
	Persist                  // the deadline was taken off
	Join                     // a member was added to the queue: Value, Manager, Seq, TTL, Score
	Leave                    // a member left the queue by itself
	Pop                      // a member was popped: Granted, or skipped as dead
	QueueEnd                 // the whole queue was removed, and not by popping
	Flush                    // FLUSHALL or FLUSHDB
	Restart                  // the server began anew with nothing
	Rewind                   // what had happened since the fork was lost: Value, if the key then had one that it had not at the fork
	Strange                  // a command that nobody is known to send: Text
)

var kindNames = [...]string{"", "set", "prolong", "delete", "unlink", "replace", "persist",
	"join", "leave", "pop", "queue end", "flush", "restart", "rewind", "strange"}

func (k Kind) String() string { return kindNames[k] }

// A Fact is something that happened to one lock key.
type Fact struct {
	Kind   Kind
	Serial int
	Step   int
	Value  string // the owner value concerned; of removals, the one that was removed

	Deadline  int64  // Unix time, ms; of Set and Prolong, 0: none
	Before    int64  // Prolong: the deadline before it
	Over      string // Set: the value that was there
	FromQueue bool   // Set: of a value that was popped in the same step

	Granted bool   // Pop: the key was set to the value in the same step
	Manager string // Join, Leave, Pop
	Seq     string
	TTL     int64 // ms, as the member says
	Score   float64

	Waiting int    // how many stood in the queue right after this command
	Text    string // Strange: the command
}

// A Hold is the time for which a key held one value.
type Hold struct {
	Key, Value string
	Step       int // of the Set
	Serial     int
	Deadlines  []Deadline // at least one; the first is the Set's
	FromQueue  bool
	Again      bool // it had ended, and the end was lost: see Rewound

	Lost *Fork // the lost history in which it began; nil: none
	Cut  *Fork // the last one in which it was prolonged, or ended; nil: none

	End       Kind // Delete, Unlink, Replace, Flush, Restart, Rewind; 0: to the end of the history
	EndStep   int
	EndSerial int
	Next      string // Replace: by this value
}

// A Deadline is the time at which a key was to expire, from a step on.
type Deadline struct {
	Step int
	At   int64 // Unix time, ms; 0: never
}

// Last returns the deadline that was in force at the end.
func (h *Hold) Last() int64 { return h.Deadlines[len(h.Deadlines)-1].At }

// A Draw is a fencing token that was drawn.
type Draw struct {
	Serial, Step int
	Token        int64
}

// A Key is the history of one lock key and its queue.
type Key struct {
	Name  string
	Facts []Fact
	Holds []*Hold
}

// A Log is a history, replayed.
type Log struct {
	Entries []Entry
	Keys    map[string]*Key
	Draws   []Draw // of all keys: one counter serves them all
	Forks   []*Fork

	spans []span // by step
}

// The names that the library gives its keys: see keys.go of the root module.
const (
	reserved    = "redislock:"
	fenceKey    = reserved + "fence"
	queuePrefix = reserved + "queue:"
)

// isFence tells whether a key is a counter of tokens. A cluster has one for each slot.
func isFence(name string) bool { return name == fenceKey || strings.HasPrefix(name, fenceKey+":") }

// lockOfQueue returns the lock key that a queue belongs to.
func lockOfQueue(queue string) (string, bool) {
	side, ok := strings.CutPrefix(queue, queuePrefix)
	if !ok || side == "" {
		return "", false
	}
	if side[0] == ':' { // the key carries a hash tag of its own
		return side[1:], true
	}
	end := strings.IndexByte(side, '}')
	switch {
	case side[0] != '{' || end < 0:
		return "", false
	case end == len(side)-1: // the key is the tag
		return side[1:end], true
	case side[end+1] == '}': // a tag that stands in for the slot, then the key
		return side[end+2:], true
	}
	return "", false
}

// member is what a queue holds for a waiter: manager:ttl:seq:value.
type member struct {
	manager, seq, value string
	ttl                 int64
}

func parseMember(text string) (m member, ok bool) {
	parts := strings.SplitN(text, ":", 4)
	if len(parts) != 4 {
		return member{value: text}, false
	}
	ttl, err := parseInt(parts[1])
	return member{manager: parts[0], ttl: ttl, seq: parts[2], value: parts[3]}, err == nil
}
