package check_test

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redislock/redislock/test/aof"
	"github.com/redislock/redislock/test/check"
	"github.com/redislock/redislock/test/history"
)

// world is a Redis and some processes that use it as the library does, in
// imagined time: it leaves the events and entries of a run in which all is well.
type world struct {
	now     int64 // CLOCK_MONOTONIC, ns
	events  []history.Event
	entries []aof.Entry
	step    int
	fence   int64
	keys    map[string]*lockKey
	ops     map[string]*acquisition
	dead    map[string]bool
	clock   int // makes scores differ
}

type lockKey struct {
	holder   string
	deadline int64 // ms, wall
	queue    []string
}

type acquisition struct {
	name, key, process string
	ttl                int64 // ms
	score              string
	granted            bool
	ended              bool // unlocked, cancelled, or told that it is lost
	validUntil         int64
	renew              bool
}

const noFence = 0

const wallMinusMono = 1_700_000_000_000_000_000

func newWorld() *world {
	return &world{
		now: 1_000_000_000, fence: noFence,
		keys: make(map[string]*lockKey), ops: make(map[string]*acquisition), dead: make(map[string]bool),
	}
}

func (w *world) input() check.Input {
	return check.Input{
		Events: slices.Clone(w.events), Entries: slices.Clone(w.entries), WallMinusMono: wallMinusMono,
		TimeLimit: 5 * time.Second,
	}
}

func (w *world) wall() int64 { return (w.now + wallMinusMono) / 1e6 }

// pass lets time go by; whoever believed in a lease that ends is told in time.
func (w *world) pass(ms int64) {
	for end := w.now + ms*1e6; ; {
		next := (*acquisition)(nil)
		for _, a := range w.ops {
			if a.granted && !a.ended && a.validUntil < end && !w.dead[a.process] &&
				(next == nil || a.validUntil < next.validUntil) {
				next = a
			}
		}
		if next == nil {
			w.now = end
			return
		}
		w.now = max(w.now, next.validUntil)
		next.ended = true
		w.event(history.Done, next, func(e *history.Event) { e.Err, e.Is = "lock lost", "lost" })
	}
}

func (w *world) tick() { w.now += 50_000 }

func (w *world) event(kind history.Kind, a *acquisition, change func(*history.Event)) {
	w.tick()
	e := history.Event{At: w.now, Process: a.process, Kind: kind, Op: a.name, Key: a.key}
	if change != nil {
		change(&e)
	}
	w.events = append(w.events, e)
}

// of adds an event of the process, or about it.
func (w *world) of(process string, kind history.Kind, change func(*history.Event)) {
	w.event(kind, &acquisition{process: process}, change)
}

func (w *world) begin() { w.step++ }

func (w *world) entry(args ...string) {
	w.entries = append(w.entries, aof.Entry{
		Serial: len(w.entries) + 1, Step: w.step, Second: w.wall() / 1000, Args: args,
	})
}

func (w *world) key(name string) *lockKey {
	if w.keys[name] == nil {
		w.keys[name] = &lockKey{}
	}
	return w.keys[name]
}

func (a *acquisition) member() string { return fmt.Sprintf("m%s:%d:1:%s", a.process, a.ttl, a.name) }

func queueOf(key string) string { return "redislock:queue:{" + key + "}" }

// expire removes the key if its deadline has passed, as any access does.
func (w *world) expire(key string) {
	if k := w.key(key); k.holder != "" && w.wall() > k.deadline {
		w.entry("UNLINK", key)
		k.holder = ""
	}
}

func (w *world) set(a *acquisition) int64 {
	k := w.key(a.key)
	k.holder, k.deadline = a.name, w.wall()+a.ttl
	w.entry("SET", a.key, a.name, "PXAT", strconv.FormatInt(k.deadline, 10))
	return k.deadline
}

// draw draws a token as a script does: one more than the last, or the clock where
// that is more than 10 ms ahead of it.
func (w *world) draw() int64 {
	w.fence++
	w.entry("INCR", "redislock:fence")
	if clock := (w.now + wallMinusMono) / 1000; w.fence < clock-10_000 {
		w.fence = clock
		w.entry("SET", "redislock:fence", strconv.FormatInt(w.fence, 10), "PXAT", strconv.FormatInt(w.wall()+86_400_000, 10))
	}
	return w.fence
}

// tell has the caller learn of his grant, unless his process is dead.
func (w *world) tell(a *acquisition, token int64) {
	valid := w.now + a.ttl*990_000
	if w.dead[a.process] {
		return
	}
	a.granted, a.validUntil = true, valid
	w.event(history.Granted, a, func(e *history.Event) { e.Token, e.ValidUntil = token, valid })
}

// lock calls Lock. It takes the key if it is free and nobody waits, else it joins.
func (w *world) lock(name, key, process string, ttl int64, renew bool) *acquisition {
	a := &acquisition{name: name, key: key, process: process, ttl: ttl, renew: renew}
	w.ops[name] = a
	w.event(history.Call, a, func(e *history.Event) { e.TTL, e.Method, e.Renew = ttl*1e6, "lock", renew })
	w.look(a)
	return a
}

// look sends acquire.lua for a waiter.
func (w *world) look(a *acquisition) {
	w.tick()
	w.begin()
	w.expire(a.key)
	k := w.key(a.key)
	if k.holder == "" && len(k.queue) == 0 {
		w.set(a)
		w.tell(a, w.draw())
		return
	}
	if a.score == "" {
		w.clock++
		a.score = strconv.FormatInt((w.now+wallMinusMono)/1000+int64(w.clock), 10)
	}
	if !slices.Contains(k.queue, a.name) {
		w.entry("ZADD", queueOf(a.key), "NX", a.score, a.member())
		k.queue = append(k.queue, a.name)
		slices.SortStableFunc(k.queue, func(x, y string) int {
			n, _ := strconv.ParseInt(w.ops[x].score, 10, 64)
			m, _ := strconv.ParseInt(w.ops[y].score, 10, 64)
			return int(n - m)
		})
	}
	if k.holder == "" {
		w.handOver(a.key)
	}
}

// handOver makes the first live waiter the holder, in the step that is under way.
func (w *world) handOver(key string) bool {
	k := w.key(key)
	for i, name := range k.queue {
		next := w.ops[name]
		if w.dead[next.process] {
			continue
		}
		k.queue = k.queue[i+1:]
		w.entry("ZPOPMIN", queueOf(key), strconv.Itoa(i+1))
		token := w.draw()
		w.set(next)
		w.tell(next, token)
		return true
	}
	return false
}

// unlock calls Unlock for a holder.
func (w *world) unlock(a *acquisition) {
	a.ended = true
	w.event(history.Unlock, a, nil)
	w.tick()
	w.begin()
	w.expire(a.key)
	k := w.key(a.key)
	ours := k.holder == a.name
	if ours && !w.handOver(a.key) {
		w.entry("DEL", a.key)
		k.holder = ""
	}
	w.event(history.Unlocked, a, func(e *history.Event) {
		if !ours {
			e.Err, e.Is = "lock not held", "notheld lost"
		}
	})
}

// extend calls Extend for a holder.
func (w *world) extend(a *acquisition, ttl int64) {
	w.event(history.Extend, a, func(e *history.Event) { e.TTL = ttl * 1e6 })
	sent := w.now
	w.prolong(a, ttl)
	a.validUntil = max(a.validUntil, sent+ttl*990_000)
	w.event(history.Extended, a, func(e *history.Event) { e.ValidUntil = a.validUntil })
}

func (w *world) prolong(a *acquisition, ttl int64) {
	w.tick()
	w.begin()
	if k := w.key(a.key); w.wall()+ttl > k.deadline {
		k.deadline = w.wall() + ttl
		w.entry("PEXPIREAT", a.key, strconv.FormatInt(k.deadline, 10))
	}
}

// write writes to the guarded resource.
func (w *world) write(a *acquisition, token int64) {
	w.event(history.Write, a, func(e *history.Event) { e.Token = token })
	w.event(history.Accepted, &acquisition{name: a.name, key: a.key, process: "resource"},
		func(e *history.Event) { e.Token = token })
	w.event(history.Written, a, func(e *history.Event) { e.Token, e.Accepted = token, true })
}

// cancel ends the context of a waiter.
func (w *world) cancel(a *acquisition) {
	a.ended = true
	w.event(history.Cancel, a, nil)
	w.event(history.Failed, a, func(e *history.Event) { e.Err, e.Is = "context canceled", "canceled" })
	w.tick()
	w.begin()
	if k := w.key(a.key); slices.Contains(k.queue, a.name) {
		k.queue = slices.DeleteFunc(k.queue, func(name string) bool { return name == a.name })
		w.entry("ZREM", queueOf(a.key), a.member())
	}
}

func (w *world) kill(process string) {
	w.dead[process] = true
	w.of(process, history.Killed, nil)
}

func (w *world) flush() {
	w.tick()
	w.begin()
	w.entry("FLUSHALL")
	for _, k := range w.keys {
		k.holder, k.queue = "", nil
	}
	w.fence = noFence
}

// last returns the last entry whose command begins so, for tests to spoil. The
// arguments are the test's own.
func last(entries []aof.Entry, begins ...string) *aof.Entry {
	for i := len(entries) - 1; i >= 0; i-- {
		if e := &entries[i]; len(e.Args) >= len(begins) && slices.Equal(e.Args[:len(begins)], begins) {
			e.Args = slices.Clone(e.Args)
			return e
		}
	}
	panic(fmt.Sprintf("no entry %q", begins))
}

// event returns the last event of that kind of an operation.
func event(events []history.Event, kind history.Kind, op string) *history.Event {
	for i := len(events) - 1; i >= 0; i-- {
		if e := &events[i]; e.Kind == kind && e.Op == op {
			return e
		}
	}
	panic("no event " + string(kind) + " of " + op)
}
