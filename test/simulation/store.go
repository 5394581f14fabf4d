package simulation

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A store is what a Redis server keeps: strings and sorted sets with their
// expiry, on the server's own clock. It knows only the commands that the library
// uses, and answers these as Redis 7 does.
type store struct {
	now     func() time.Duration // the server's clock, since the Unix epoch
	entries map[string]*entry
	watch   watcher
	notify  func(event, key string)
}

// A watcher sees every change of the store, in the order in which Redis makes
// them. It is how the checks know the truth.
type watcher interface {
	wasSet(key, value string, expires int64, onlyIfAbsent bool)
	wasRemoved(key, value string, how removal, expired int64)
	wasProlonged(key, value string, expires int64)
	hasJoined(key, member string)
	wasPutBack(key, member string)
	hasLeft(key, member string, how removal)
}

// removal is how a key, or a member of a queue, went.
type removal string

const (
	deleted removal = "deleted"
	expired removal = "expired"
	flushed removal = "flushed"
	popped  removal = "popped"
)

type entry struct {
	text    string
	scores  map[string]float64 // a sorted set, if not nil
	expires int64              // server's clock in ms; 0: never
}

// Replies. A nil reply is the null of the protocol.
type (
	status  string
	failure string
)

var errWrongType = failure("WRONGTYPE Operation against a key holding the wrong kind of value")

// ms is the clock by which keys expire: Redis counts whole milliseconds, and a
// key is gone in the first one after its end.
func (s *store) ms() int64 { return s.now().Milliseconds() }

func (s *store) get(key string) *entry {
	e := s.entries[key]
	if e != nil && e.expires != 0 && s.ms() > e.expires {
		s.remove(key, expired)
		return nil
	}
	return e
}

func (s *store) remove(key string, how removal) {
	e := s.entries[key]
	delete(s.entries, key)
	for _, member := range slices.Sorted(maps.Keys(e.scores)) {
		s.watch.hasLeft(key, member, how)
	}
	if e.scores == nil {
		s.watch.wasRemoved(key, e.text, how, e.expires)
	}
	switch how {
	case deleted:
		s.notify("del", key)
	case expired:
		s.notify("expired", key)
	}
}

// expire removes what has expired, as Redis does in its own time.
func (s *store) expire() {
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		s.get(key)
	}
}

func (s *store) flush() {
	s.expire()
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		s.remove(key, flushed)
	}
}

// keys returns the keys that are there.
func (s *store) keys() []string {
	s.expire()
	return slices.Sorted(maps.Keys(s.entries))
}

var errArguments = errors.New("wrong number of arguments or an argument that is not known here")

// do carries out one command.
func (s *store) do(args []string) (reply any) {
	defer func() {
		if p := recover(); p != nil {
			if p == errWrongType {
				reply = errWrongType
				return
			}
			reply = failure(fmt.Sprintf("ERR %v: %q", p, args))
		}
	}()
	switch name := strings.ToUpper(args[0]); name {
	case "GET":
		if e := s.text(args[1]); e != nil {
			return e.text
		}
		return nil
	case "MGET": // nothing for what is no string
		values := []any{}
		for _, key := range args[1:] {
			if e := s.get(key); e != nil && e.scores == nil {
				values = append(values, e.text)
			} else {
				values = append(values, nil)
			}
		}
		return values
	case "SET":
		return s.set(args[1], args[2], args[3:])
	case "INCR":
		return s.increment(args[1], 1)
	case "INCRBY":
		return s.increment(args[1], integer(args[2]))
	case "DEL":
		n := int64(0)
		for _, key := range args[1:] {
			if s.get(key) != nil {
				s.remove(key, deleted)
				n++
			}
		}
		return n
	case "EXISTS":
		n := int64(0)
		for _, key := range args[1:] {
			if s.get(key) != nil {
				n++
			}
		}
		return n
	case "PTTL":
		switch e := s.get(args[1]); {
		case e == nil:
			return int64(-2)
		case e.expires == 0:
			return int64(-1)
		default:
			return max(0, e.expires-s.ms())
		}
	case "PEXPIRE":
		e := s.get(args[1])
		if e == nil {
			return int64(0)
		}
		e.expires = s.ms() + integer(args[2])
		if e.scores == nil {
			s.watch.wasProlonged(args[1], e.text, e.expires)
		}
		s.notify("expire", args[1])
		return int64(1)
	case "TIME":
		t := s.now()
		return []any{strconv.FormatInt(int64(t/time.Second), 10), strconv.FormatInt(int64(t%time.Second/time.Microsecond), 10)}
	default:
		return s.sortedSet(name, args[1:])
	}
}

func (s *store) set(key, value string, options []string) any {
	old := s.get(key)
	var expires int64
	absent := false
	for i := 0; i < len(options); i++ {
		switch strings.ToUpper(options[i]) {
		case "NX":
			absent = true
		case "PX":
			i++
			expires = s.ms() + integer(options[i])
		default:
			panic(errArguments)
		}
	}
	if absent && old != nil {
		return nil
	}
	s.entries[key] = &entry{text: value, expires: expires}
	s.watch.wasSet(key, value, expires, absent)
	s.notify("set", key)
	return status("OK")
}

// increment leaves the time to live as it is; a key that it begins has none.
func (s *store) increment(key string, by int64) any {
	n, expires := int64(0), int64(0)
	if e := s.text(key); e != nil {
		var err error
		if n, err = strconv.ParseInt(e.text, 10, 64); err != nil || n > math.MaxInt64-by {
			return failure("ERR value is not an integer or out of range")
		}
		expires = e.expires
	}
	n += by
	value := strconv.FormatInt(n, 10)
	s.entries[key] = &entry{text: value, expires: expires}
	s.watch.wasSet(key, value, expires, false)
	s.notify("incrby", key)
	return n
}

func (s *store) sortedSet(name string, args []string) any {
	key := args[0]
	e := s.get(key)
	if e != nil && e.scores == nil {
		return errWrongType
	}
	switch name {
	case "ZADD":
		return s.zadd(key, e, args[1:])
	case "ZSCORE":
		if e != nil {
			if score, ok := e.scores[args[1]]; ok {
				return score
			}
		}
		return nil
	case "ZREM":
		if e == nil {
			return int64(0)
		}
		if _, ok := e.scores[args[1]]; !ok {
			return int64(0)
		}
		s.zrem(key, e, args[1], deleted)
		return int64(1)
	case "ZREMRANGEBYRANK": // all but the last 1,000
		if len(args) != 3 || args[1] != "0" || args[2] != "-1001" {
			panic(errArguments)
		}
		if len(e.ranked("0", "-1001")) > 0 {
			panic("not that many waiters are simulated")
		}
		return int64(0)
	case "ZPOPMIN":
		last := "0"
		switch len(args) {
		case 1:
		case 2:
			last = strconv.FormatInt(integer(args[1])-1, 10)
		default:
			panic(errArguments)
		}
		gone := []any{}
		for _, member := range e.ranked("0", last) {
			gone = append(gone, member, e.scores[member])
			s.zrem(key, e, member, popped)
		}
		return gone
	case "ZRANGE":
		scores := len(args) == 4 && strings.ToUpper(args[3]) == "WITHSCORES"
		if !scores && len(args) != 3 {
			panic(errArguments)
		}
		found := []any{}
		for _, member := range e.ranked(args[1], args[2]) {
			found = append(found, member)
			if scores {
				found = append(found, e.scores[member])
			}
		}
		return found
	}
	return failure("ERR unknown command '" + name + "'")
}

func (s *store) zadd(key string, e *entry, args []string) any {
	nx := len(args) == 3 && strings.ToUpper(args[0]) == "NX"
	if nx {
		args = args[1:]
	}
	if len(args) > 2 && !nx { // several at once
		added := int64(0)
		for ; len(args) > 0; args = args[2:] {
			added += s.zadd(key, s.get(key), args[:2]).(int64)
		}
		return added
	}
	if len(args) != 2 {
		panic(errArguments)
	}
	score, err := strconv.ParseFloat(args[0], 64)
	if err != nil {
		panic(err)
	}
	if e == nil {
		e = s.newSet(key)
	}
	if _, there := e.scores[args[1]]; there {
		if !nx {
			e.scores[args[1]] = score
			s.watch.wasPutBack(key, args[1])
		}
		return int64(0)
	}
	e.scores[args[1]] = score
	s.watch.hasJoined(key, args[1])
	return int64(1)
}

func (s *store) zrem(key string, e *entry, member string, how removal) {
	delete(e.scores, member)
	s.watch.hasLeft(key, member, how)
	if len(e.scores) == 0 {
		delete(s.entries, key)
		s.notify("del", key)
	}
}

func (s *store) newSet(key string) *entry {
	e := &entry{scores: make(map[string]float64)}
	s.entries[key] = e
	return e
}

func (s *store) text(key string) *entry {
	e := s.get(key)
	if e != nil && e.scores != nil {
		panic(errWrongType)
	}
	return e
}

// sorted returns the members of a sorted set by score.
func (e *entry) sorted() []string {
	return slices.SortedFunc(maps.Keys(e.scores), func(a, b string) int {
		return cmp.Or(cmp.Compare(e.scores[a], e.scores[b]), strings.Compare(a, b))
	})
}

// ranked returns the members from one rank to another, which count from the end if
// they are negative.
func (e *entry) ranked(from, to string) []string {
	if e == nil {
		return nil
	}
	all := e.sorted()
	first, last := int(integer(from)), int(integer(to))
	if first < 0 {
		first = max(0, first+len(all))
	}
	if last < 0 {
		last += len(all)
	}
	last = min(last, len(all)-1)
	if first > last {
		return nil
	}
	return all[first : last+1]
}

func integer(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// number writes a number as Redis does.
func number(f float64) string {
	if f == math.Trunc(f) && math.Abs(f) < 1<<63 {
		return strconv.FormatInt(int64(f), 10)
	}
	return strconv.FormatFloat(f, 'g', 17, 64)
}
