package redislock

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Decoding of what Redis says: replies of the scripts, and grant messages.
// What does not fit is an error, never a guess.

// acquireReply is the reply of acquire.lua.
type acquireReply struct {
	held   bool
	behind bool          // joined, and that is all: another waiter here looks after the line
	server time.Duration // the server's clock
	lease  time.Duration // left to the holder; negative: without end

	token int64 // held only
	alone bool  // held only: nobody stood in the line

	// Neither held nor behind; the last three of those who joined only. The score
	// is there for who is behind, too.
	holder   string
	turn     uint64 // this manager's waiter who has just become the holder
	score    int64
	added    bool
	shortest time.Duration
}

func decodeAcquire(v any) (r acquireReply, err error) {
	f := fields(v, &err)
	kind := f.int(0)
	r.held, r.behind = kind == 1, kind == 2
	r.server = f.time(1)
	if r.behind {
		r.score = r.server.Microseconds()
		return r, err
	}
	if r.held {
		r.token = f.int(3)
		r.lease = f.milliseconds(4)
		r.alone = f.int(5) == 1
		return r, err
	}
	r.lease = f.milliseconds(3)
	r.holder = f.string(4)
	if turn := f.string(5); turn != "" {
		r.turn = f.uint(5)
	}
	if len(f.values) > 6 {
		r.score = f.int(6)
		r.added = f.int(7) == 1
		r.shortest = f.milliseconds(8)
	}
	return r, err
}

// releaseReply is the reply of release.lua.
type releaseReply struct {
	released bool
	freed    bool // nobody was waiting
	foreign  bool // the key has the value, though not by the lock's own doing as far as is known

	// The waiter of this manager who is the holder now.
	handed bool
	server time.Duration // the server's clock
	seq    uint64
	token  int64
	value  string
}

func decodeRelease(v any) (r releaseReply, err error) {
	switch v {
	case int64(0):
		return r, nil
	case int64(1):
		return releaseReply{released: true, freed: true}, nil
	case int64(2):
		return releaseReply{released: true}, nil
	case int64(4):
		return releaseReply{foreign: true}, nil
	}
	f := fields(v, &err)
	if f.int(0) != 3 {
		f.fail(0)
	}
	r.released, r.handed = true, true
	r.server = f.time(1)
	r.seq = f.uint(3)
	r.token = f.int(4)
	r.value = f.string(5)
	return r, err
}

// decodeFree reads the reply of free.lua, about the lock with that number in the call.
func decodeFree(v any, place int) (freed bool, err error) {
	if _, ok := v.(int64); ok {
		return true, nil
	}
	f := fields(v, &err)
	f.int(0) // there is one at least
	for i := range f.values {
		if f.int(i) == int64(place) {
			return false, err
		}
	}
	return true, err
}

// voteReply is the reply of vote.lua.
type voteReply struct {
	verdict verdict
	server  time.Duration // the server's clock

	token  int64  // yes
	rival  string // yes
	lease  time.Duration
	holder string
	polled bool          // yes or no: see vote.lua
	uptime time.Duration // none: too short
}

func decodeVote(v any) (r voteReply, err error) {
	f := fields(v, &err)
	kind := f.int(0)
	r.server = f.time(1)
	switch kind {
	case 0:
		r.verdict, r.lease, r.holder, r.polled = no, f.milliseconds(3), f.string(4), f.int(5) == 1
	case 1:
		r.verdict, r.token, r.rival, r.polled = yes, f.int(3), f.string(4), f.int(5) == 1
	case 2:
		r.verdict, r.uptime = none, f.milliseconds(3)*1000
	default:
		f.fail(0)
	}
	return r, err
}

// decodeProbe reads the reply of probe.lua: how many connections listen, and the
// server's clock.
func decodeProbe(v any) (receivers int64, server time.Duration, err error) {
	f := fields(v, &err)
	return f.int(0), f.time(1), err
}

func decodeTime(v any) (t time.Duration, err error) {
	f := fields(v, &err)
	return f.time(0), err
}

// grant is a message of handover.lua: a waiter of this manager is the holder.
type grant struct {
	token  int64
	server time.Duration // the server's clock at that moment
	seq    uint64
	key    string
	value  string
}

func decodeGrant(message string) (g grant, err error) {
	parts := strings.SplitN(message, " ", 6)
	if len(parts) != 6 {
		return g, fmt.Errorf("grant message has %d fields: want 6", len(parts))
	}
	values := make([]any, len(parts))
	for i, part := range parts {
		values[i] = part
	}
	f := reader{values, &err}
	g.token = f.int(0)
	g.server = f.time(1)
	g.seq = f.uint(3)
	length := f.uint(4)
	if err == nil && length > uint64(len(parts[5])) {
		err = fmt.Errorf("grant message: key of %d bytes in a rest of %d", length, len(parts[5]))
	}
	if err != nil {
		return grant{}, err
	}
	g.key, g.value = parts[5][:length], parts[5][length:]
	return g, nil
}

// A reader reads the fields of a reply and keeps the first error.
type reader struct {
	values []any
	err    *error
}

func fields(v any, err *error) reader {
	values, ok := v.([]any)
	if !ok {
		*err = fmt.Errorf("unexpected reply %v (%T)", v, v)
	}
	return reader{values, err}
}

func (r reader) fail(i int) {
	if *r.err == nil {
		*r.err = fmt.Errorf("unexpected field %d in reply %q", i, r.values)
	}
}

// int reads a number in any of the shapes that RESP2 and RESP3 give it.
func (r reader) int(i int) int64 {
	if i < len(r.values) {
		if n, ok := asInt(r.values[i]); ok {
			return n
		}
	}
	r.fail(i)
	return 0
}

func asInt(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case float64:
		return int64(v), v == math.Trunc(v) && math.Abs(v) < 1<<53
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		return n, err == nil
	}
	return 0, false
}

func (r reader) uint(i int) uint64 {
	n := r.int(i)
	if n < 0 {
		r.fail(i)
		return 0
	}
	return uint64(n)
}

func (r reader) string(i int) string {
	if i < len(r.values) {
		if s, ok := r.values[i].(string); ok {
			return s
		}
	}
	r.fail(i)
	return ""
}

// time reads what TIME replies: seconds and microseconds.
func (r reader) time(i int) time.Duration {
	seconds, micros := r.int(i), r.int(i+1)
	if seconds < 0 || seconds > math.MaxInt64/int64(time.Second)-1 || micros < 0 || micros >= 1e6 {
		r.fail(i)
		return 0
	}
	return time.Duration(seconds)*time.Second + time.Duration(micros)*time.Microsecond
}

// milliseconds reads a time that may be longer than a time.Duration can be.
func (r reader) milliseconds(i int) time.Duration {
	return time.Duration(max(-1, min(r.int(i), maxTTL.Milliseconds()))) * time.Millisecond
}
