package scripts

import (
	"maps"
	"slices"

	"pgregory.net/rapid"
)

// actions are what may happen in a world.
func (w *world) actions() map[string]func(*rapid.T) {
	all := map[string]func(*rapid.T){
		"join":      w.join,
		"try":       w.try,
		"come back": w.comeBack,
		"rejoin":    w.rejoin,
		"late join": w.lateJoin, "late join 2": w.lateJoin, "late join 3": w.lateJoin,
		"release":  w.release,
		"hand on":  w.releaseByHolder,
		"free":     w.free,
		"abandon":  w.abandon,
		"extend":   w.extend,
		"claim":    w.claim,
		"repeat":   w.repeat,
		"listen":   w.listen,
		"foreign":  w.foreign,
		"expire":   w.expire,
		"set back": w.setBack,
		"spoil":    w.spoil,
		"tick":     w.tick,
		"slip in":  w.slipIn,
		// Lines grow if more join than leave.
		"join 2": w.join, "join 3": w.join, "join 4": w.join, "join 5": w.join,
		"hand on 2": w.releaseByHolder, "hand on 3": w.releaseByHolder, "hand on 4": w.releaseByHolder,
	}
	for name, action := range all {
		all[name] = func(t *rapid.T) {
			if !w.over {
				action(t)
			}
		}
	}
	return all
}

func (w *world) caller(t *rapid.T) *caller { return rapid.SampledFrom(w.callers).Draw(t, "caller") }

func (w *world) join(t *rapid.T) {
	by := w.caller(t)
	w.do(t, call{verb: "acquire", by: by, join: true, foreign: seldom(t)})
	if rapid.Bool().Draw(t, "the answer is lost") {
		by.score = [2]int64{}
	}
}

// seldom is whether a value that is found counts as another's.
func seldom(t *rapid.T) bool { return rapid.IntRange(0, 3).Draw(t, "foreign") == 0 }

func (w *world) try(t *rapid.T) {
	w.do(t, call{verb: "acquire", by: w.caller(t), foreign: seldom(t)})
}

// rejoin is a look after the line, and what follows when a line was lost.
func (w *world) rejoin(t *rapid.T) {
	by := w.caller(t)
	w.do(t, call{verb: "acquire", by: by, join: true, score: by.score, unsure: rapid.Bool().Draw(t, "unsure")})
}

// lateJoin is the first request of one who was skipped, after another that was sent in
// its place; and then he comes back.
func (w *world) lateJoin(t *rapid.T) {
	by := w.oneSkipped(t)
	known := by.score
	w.do(t, call{verb: "acquire", by: by, join: true})
	if !w.over {
		w.do(t, call{verb: "acquire", by: by, join: true, score: known, unsure: true})
	}
}

// comeBack is the rejoin of a waiter that was skipped and does not know its place.
func (w *world) comeBack(t *rapid.T) {
	w.do(t, call{verb: "acquire", by: w.oneSkipped(t), join: true, unsure: true})
}

func (w *world) oneSkipped(t *rapid.T) *caller {
	var skipped []*caller
	for _, by := range w.callers {
		if slices.ContainsFunc(w.models[0].db[by.skipped].zset, func(s scored) bool { return s.member == by.member() }) {
			skipped = append(skipped, by)
		}
	}
	if len(skipped) == 0 {
		t.Skip("nobody was skipped")
	}
	return rapid.SampledFrom(skipped).Draw(t, "caller")
}

// release is by whoever it may be: holder, waiter or stranger.
func (w *world) release(t *rapid.T) {
	by := w.caller(t)
	c := call{verb: "release", by: by, foreign: seldom(t)}
	if by.joined {
		c.member = by.member()
	}
	w.do(t, c)
}

// free is by the holder, if there is one, and perhaps by others as well.
func (w *world) free(t *rapid.T) {
	holder := func() *caller {
		by := w.caller(t)
		if at := w.holder(by.place); at >= 0 && rapid.IntRange(0, 3).Draw(t, "somebody else") > 0 {
			by = w.callers[at]
		}
		return by
	}
	c := call{verb: "free", by: holder()}
	for range rapid.IntRange(0, 4).Draw(t, "others") {
		by := holder()
		if by.place == c.by.place || !w.spoilt(c.by.place) && !w.spoilt(by.place) {
			c.others = append(c.others, by)
		}
	}
	w.do(t, c)
}

// holder returns which caller holds the lock, or -1.
func (w *world) holder(p place) int {
	return slices.IndexFunc(w.callers, func(c *caller) bool {
		e := w.models[0].db[p.lock]
		return c.place == p && e.kind == "string" && e.text[0] == c.value
	})
}

func (w *world) releaseByHolder(t *rapid.T) {
	p := rapid.SampledFrom(w.places).Draw(t, "place")
	at := w.holder(p)
	if at < 0 {
		t.Skip("nobody holds it")
	}
	w.do(t, call{verb: "release", by: w.callers[at]})
}

// abandon is the release of a lock that forgets its caller's place.
func (w *world) abandon(t *rapid.T) {
	by := w.caller(t)
	w.do(t, call{verb: "release", by: by, member: by.member()})
	by.joined, by.score = false, [2]int64{}
}

func (w *world) extend(t *rapid.T) {
	w.do(t, call{verb: "extend", by: w.caller(t), ttl: max(2, anyTTL().Draw(t, "extension"))})
}

// claim is the plain SET NX with a token, after the fence was raised if need be.
func (w *world) claim(t *rapid.T) {
	w.do(t, call{verb: "claim", by: w.caller(t), raise: rapid.Bool().Draw(t, "raise")})
}

// slipIn is a claim that comes just as the key is free, perhaps by one who has
// long been waiting, and whose answer is lost.
func (w *world) slipIn(t *rapid.T) {
	by := w.caller(t)
	w.plain(t, []any{"del", by.lock})
	if !w.over {
		w.do(t, call{verb: "claim", by: by})
	}
	if !w.over {
		w.do(t, call{verb: "acquire", by: by, join: by.joined})
	}
}

// repeat sends the last request again: its answer was lost.
func (w *world) repeat(t *rapid.T) {
	if w.last == nil {
		t.Skip("nothing to repeat")
	}
	w.do(t, *w.last)
}

// listen has a manager come to life, or die.
func (w *world) listen(t *rapid.T) {
	w.toggle(t, rapid.SampledFrom(w.managers).Draw(t, "manager"))
}

func (w *world) toggle(t *rapid.T, manager string) {
	for i, s := range w.servers {
		on := !w.models[i].live[manager]
		w.models[i].live[manager] = on
		s.subscribe(t, channel+manager, on)
	}
}

func (w *world) tick(t *rapid.T) {
	w.servers[0].clock += rapid.SampledFrom([]int64{1, 700, 1_000_000}).Draw(t, "µs")
}

// plain runs plain commands of other programs on both servers.
func (w *world) plain(t *rapid.T, commands ...[]any) {
	var got [2]answer
	for i, s := range w.servers {
		got[i] = s.call(t, commands...)
	}
	if w.blurred(got) {
		return
	}
	if diff := sameState(got[0].state, got[1].state, got[1].slack()); diff != "" {
		t.Fatalf("after %q %s", commands, diff)
	}
	w.align(got)
	for i := range w.models {
		w.models[i].db = got[i].state
	}
	w.hold()
	w.noteLoss()
}

// foreign is what other programs, and people, do.
func (w *world) foreign(t *rapid.T) {
	p := rapid.SampledFrom(w.places).Draw(t, "place")
	ttl := anyTTL().Draw(t, "ttl")
	w.plain(t, rapid.SampledFrom([][]any{
		{"set", p.lock, "foreign", "nx", "px", ttl},
		{"set", p.lock, "for ever", "nx"},
		{"set", p.lock, ""},
		{"persist", p.lock},
		{"del", p.lock},
		{"del", p.queue},
		{"del", p.shortest},
		{"del", p.skipped},
		{"del", fence},
		{"set", fence, 7},
		{"set", fence, "no number"},
		{"flushall"},
		{"zadd", p.queue, 5, "junk"},
		{"zadd", p.queue, 6, "m:x:1:value"},
		{"zadd", p.queue, 7, "a\x00b:1000:9:of a dead manager"},
	}).Draw(t, "command"))
}

// spoil puts a key of the wrong type where the scripts use one.
func (w *world) spoil(t *rapid.T) {
	p := rapid.SampledFrom(w.places).Draw(t, "place")
	key := rapid.SampledFrom([]string{p.lock, p.queue, p.shortest, p.skipped, fence}).Draw(t, "key")
	commands := [][]any{{"del", key}}
	if rapid.Bool().Draw(t, "wrong") { // else mended
		commands = append(commands, []any{"rpush", key, "wrong", "type"})
		if rapid.Bool().Draw(t, "for a while") {
			commands = append(commands, []any{"pexpire", key, 5000})
		}
	}
	w.plain(t, commands...)
}

// expire has the time of some key run out, or all but.
func (w *world) expire(t *rapid.T) {
	var ttls []int64
	for _, e := range w.models[0].db {
		if e.ttl > 0 && e.ttl < 1<<35 { // a year, so that clocks stay within a score's precision
			ttls = append(ttls, e.ttl)
		}
	}
	if len(ttls) == 0 {
		t.Skip("nothing expires")
	}
	slices.Sort(ttls)
	d := rapid.SampledFrom(slices.Compact(ttls)).Draw(t, "ttl")
	d = max(1, d-rapid.SampledFrom([]int64{0, 0, 0, 1, d / 2}).Draw(t, "less"))
	w.servers[0].clock += d * 1000
	w.moveStamps(t, -d*1000)
	for i, s := range w.servers {
		s.pass(t, d)
		w.models[i].pass(d)
	}
	w.noteLoss()
}

// setBack sets the server's clock back. By much: the two servers' times go at
// different rates in between, and must agree on what was before what.
func (w *world) setBack(t *rapid.T) {
	by := rapid.SampledFrom([]int64{4_000_000_007, 90_000_000_007}).Draw(t, "µs")
	w.wentBack = true
	w.servers[0].clock -= by
	w.moveStamps(t, by)
}

// moveStamps moves what the redis-server's clock has stamped, because the clock
// itself cannot be set.
func (w *world) moveStamps(t *rapid.T, by int64) {
	var commands [][]any
	db := w.models[1].db
	for _, key := range slices.Sorted(maps.Keys(db)) {
		for _, s := range db[key].zset {
			if isStamp(s.score) {
				commands = append(commands, []any{"zincrby", key, by, s.member})
			}
		}
		if key == fence && db[key].stamped() {
			commands = append(commands, []any{"incrby", key, by})
		}
	}
	got := w.servers[1].call(t, commands...)
	if w.blurred([2]answer{{}, got}) {
		return
	}
	for key, e := range got.state {
		e.ttl = db[key].ttl
		got.state[key] = e
	}
	w.models[1].db = got.state
	w.servers[1].hold(got.state)
	if isStamp(w.highest[1]) {
		w.highest[1] += by
	}
	for manager, floor := range w.floors[1] {
		w.floors[1][manager] = floor + by
	}
	for _, c := range w.callers {
		if c.score[1] != 0 {
			c.score[1] += by
		}
	}
	w.last = nil // it may have a score of the old clock
}
