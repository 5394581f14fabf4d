package scripts

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	fence   = "redislock:fence"
	channel = "redislock:grant:"
	maxTTL  = 100 * 365 * 24 * 3600 * 1000
)

// A place is a lock key with what belongs to it. The scripts take any names for
// the side keys; those that the library makes have tests of their own.
type place struct{ lock, queue, shortest, skipped string }

func placeOf(lock string) place {
	side := "{" + lock + "}"
	return place{lock, "redislock:queue:" + side, "redislock:shortest:" + side, "redislock:skipped:" + side}
}

func (p place) keys() []any { return []any{5, p.lock, p.queue, fence, p.shortest, p.skipped} }

// A caller is one acquisition.
type caller struct {
	place
	manager, value string
	ttl            int64
	seq            uint64
	joined         bool
	score          [2]int64 // where it stands in the line of each server, once known
}

func (c *caller) member() string {
	return c.manager + ":" + strconv.FormatInt(c.ttl, 10) + ":" + strconv.FormatUint(c.seq, 10) + ":" + c.value
}

// A call is what the library sends for a lock, as in op.go.
type call struct {
	verb string // "acquire", "release", "free", "extend" or "claim"
	by   *caller

	join   bool     // acquire
	score  [2]int64 // acquire: of an earlier join, or 0
	unsure bool     // acquire: there may have been one that was not answered

	foreign bool // acquire, release: the value, if the key has it, is another's

	member string // release: the queue member that may have to go, or ""

	ttl int64 // extend

	others []*caller // free: whose locks are released by the same call

	raise bool // claim: has the fence raised before it
}

func (c call) String() string {
	others := ""
	for _, o := range c.others {
		others += fmt.Sprintf(" and %q", o.value)
	}
	return fmt.Sprintf("%s of %q%s (%s, seq %d, ttl %d) join=%t score=%v unsure=%t foreign=%t member=%q ttl=%d raise=%t",
		c.verb, c.by.value, others, c.by.manager, c.by.seq, c.by.ttl, c.join, c.score, c.unsure, c.foreign, c.member, c.ttl, c.raise)
}

// all are those for whom the call is.
func (c call) all() []*caller { return append([]*caller{c.by}, c.others...) }

// commands returns what is sent to server i.
func (c call) commands(s *texts, i int) [][]any {
	by := c.by
	switch c.verb {
	case "acquire":
		mode, score := "try", any("")
		if c.join {
			mode = "join"
		}
		if c.score[i] != 0 {
			score = c.score[i]
		} else if c.unsure {
			score = "?"
		}
		return [][]any{c.ended(append(append([]any{"eval", s.acquire}, by.keys()...),
			by.value, by.ttl, mode, by.manager, channel, by.seq, score))}
	case "release":
		return [][]any{c.ended(append(append([]any{"eval", s.release}, by.keys()...),
			by.value, by.manager, channel, c.member))}
	case "free":
		all := c.all()
		args := []any{"eval", s.free, 2 * len(all)}
		for _, o := range all {
			args = append(args, o.lock)
		}
		for _, o := range all {
			args = append(args, o.queue)
		}
		for _, o := range all {
			args = append(args, o.value)
		}
		return [][]any{args}
	case "extend":
		return [][]any{{"eval", s.extend, 1, by.lock, by.value, c.ttl}}
	}
	all := [][]any{
		{"set", by.lock, by.value, "nx", "px", by.ttl},
		{"incrby", fence, 1},
	}
	if c.raise {
		all = append([][]any{{"eval", s.raise, 1, fence}}, all...)
	}
	return all
}

// ended adds what is last.
func (c call) ended(args []any) []any {
	if c.foreign {
		args = append(args, "foreign")
	}
	return args
}

// A result is a reply, understood.
type result struct {
	what string // held, taken, behind, none, freed, handed, another's, own, declined, some, lease; or the kind of error

	time     int64
	token    int64
	lease    int64
	alone    bool
	holder   string
	turn     string
	score    int64
	added    bool
	shortest int64
	seq      string
	value    string
	left     string // free: the numbers of those that were declined
}

// understand reads the replies to a call as the scripts' heads describe them. It
// panics where they do not fit.
func understand(c call, replies []any) (r result) {
	for _, reply := range replies {
		if err, failed := reply.(error); failed {
			return result{what: kindOf(err)}
		}
	}
	switch c.verb {
	case "extend":
		return result{what: "lease", lease: replies[0].(int64)}
	case "claim":
		if c.raise {
			clock := replies[0].([]any)
			if len(clock) != 2 {
				panic("the raise replied something else than a time")
			}
			r.time, replies = micros(clock), replies[1:]
		}
		r.what = "taken"
		if replies[0] == "OK" {
			r.what = "held"
		}
		r.token = replies[1].(int64)
		return r
	case "free":
		if n, ok := replies[0].(int64); ok {
			if n < 1 {
				panic("freed none")
			}
			return result{what: "freed"}
		}
		left := replies[0].([]any)
		if len(left) == 0 {
			panic("not a reply of free")
		}
		return freed(left, len(c.all()))
	case "release":
		if kind, ok := replies[0].(int64); ok {
			return result{what: map[int64]string{0: "none", 1: "freed", 2: "handed", 4: "another's"}[kind]}
		}
	}
	f := replies[0].([]any)
	kind := f[0].(int64)
	if c.verb == "release" {
		if kind == 3 && len(f) == 6 {
			return result{what: "own", time: micros(f[1:]), seq: f[3].(string), token: whole(f[4]), value: f[5].(string)}
		}
		panic("not a reply of release")
	}
	r.time = micros(f[1:])
	switch {
	case kind == 1 && len(f) == 6:
		r.what, r.token, r.lease, r.alone = "held", whole(f[3]), f[4].(int64), f[5].(int64) == 1
	case kind == 2 && c.join && len(f) == 3:
		r.what, r.score, r.added = "behind", r.time, true
	case kind == 0 && (!c.join && len(f) == 6 || c.join && len(f) == 9):
		r.what, r.lease, r.holder, r.turn = "taken", f[3].(int64), f[4].(string), f[5].(string)
		if c.join {
			r.score, r.added, r.shortest = whole(f[6]), f[7].(int64) == 1, whole(f[8])
		}
	default:
		panic("not a reply of acquire")
	}
	return r
}

// freed is the result of a free of which some are left.
func freed(left []any, of int) result {
	r := result{what: "some", left: fmt.Sprint(left)}
	if len(left) == of {
		r.what = "declined"
	}
	return r
}

// kindOf returns the word that says what went wrong: see normalised in
// TestScripts for why not the whole message.
func kindOf(err error) string {
	for _, kind := range []string{"WRONGTYPE", "not a valid float", "value is not an integer"} {
		if strings.Contains(err.Error(), kind) {
			return kind
		}
	}
	return err.Error()
}

// whole reads a number, which has to come without a fraction or exponent.
func whole(v any) int64 {
	if n, ok := v.(int64); ok {
		return n
	}
	n, err := strconv.ParseInt(v.(string), 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func micros(f []any) int64 { return whole(f[0].(string))*1_000_000 + whole(f[1].(string)) }
