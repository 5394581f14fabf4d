package scripts

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A model is what the keys of one server should hold, and says what each call
// should answer: who holds the lock, who stands in line, who is next.
//
// What the server's clock says cannot be known beforehand. So the model takes
// times, and what is drawn from them, out of the answer, after it has checked
// them against what it knows of the clock.
type model struct {
	db   state
	live map[string]bool // managers that listen

	// Of the call that is looked at.
	got     answer
	reply   result
	sent    []grant // what should have been published
	drawn   *span   // the last token
	draws   int64   // how many there were
	putBack bool    // a waiter has got its old place
	faults  []string
}

// A grant is the message to a waiter who is the holder now.
type grant struct {
	manager, seq, key, value string
	token                    span
}

// A span is a number that depends on the clock.
type span struct{ low, high int64 }

func (s span) has(n int64) bool { return s.low <= n && n <= s.high }

func (m *model) faultf(format string, args ...any) {
	m.faults = append(m.faults, fmt.Sprintf(format, args...))
}

// step lets the model do what the server was asked to, and returns what the
// reply should have been.
func (m *model) step(c call, i int, got answer, reply result) result {
	m.got, m.reply, m.sent, m.drawn, m.draws, m.putBack, m.faults = got, reply, nil, nil, 0, false, nil
	defer m.settle()
	if reply.time != 0 && !(span{got.began, got.ended}).has(reply.time) {
		m.faultf("time %d is not between %d and %d", reply.time, got.began, got.ended)
	}
	switch c.verb {
	case "acquire":
		return m.acquire(c, i)
	case "release":
		return m.release(c)
	case "free":
		return m.free(c)
	case "extend":
		return m.extend(c)
	}
	return m.claim(c, i)
}

func (m *model) acquire(c call, i int) result {
	by, clock := c.by, span{m.reply.time, m.reply.time}
	holder, taken := m.text(by.lock)
	if taken && holder == by.value && !c.foreign { // a repetition, or the grant was lost
		m.leave(by.queue, by.member())
		return result{what: "held", token: m.token(m.draw(clock, fenceLag)), lease: m.db[by.lock].ttl}.at(m.reply.time)
	}
	if !taken && len(m.db[by.queue].zset) == 0 {
		return m.hold(by, clock)
	}

	r := result{what: "taken", score: c.score[i]}
	if c.join {
		at := slices.IndexFunc(m.db[by.queue].zset, func(s scored) bool { return s.member == by.member() })
		if skipped := m.db[by.skipped]; r.score == 0 && c.unsure {
			for _, s := range skipped.zset {
				if s.member == by.member() {
					r.score = s.score
				}
			}
		}
		switch r.added = at < 0; {
		case !r.added:
			stands := m.db[by.queue].zset[at].score
			if r.score == 0 || stands <= r.score {
				r.score = stands
				break
			}
			// A request that came late has put it behind its place.
			m.enter(by.queue, scored{by.member(), r.score})
			e := m.db[by.queue]
			e.zset = slices.DeleteFunc(e.zset, func(s scored) bool { return s == scored{by.member(), stands} })
			m.db[by.queue] = e
			m.putBack = true
		case r.added && r.score == 0:
			r.score = clock.low // the end of the line
			if line := m.db[by.queue].zset; len(line) > 0 {
				r.score = max(r.score, line[len(line)-1].score+1)
			}
		}
		if r.added {
			line := m.db[by.queue].zset
			m.enter(by.queue, scored{by.member(), r.score})
			if fresh := c.score[i] == 0 && !c.unsure; fresh && taken && r.score == clock.low && len(line) > 0 &&
				strings.HasPrefix(line[len(line)-1].member, fmt.Sprintf("%s:%d:", by.manager, by.ttl)) {
				r.what = "behind"
				return r.at(m.reply.time)
			}
		}
	} else {
		r.score = 0
	}

	if !taken {
		next, found := m.promote(by, span{m.reply.time, m.got.ended})
		switch {
		case !found:
			return m.hold(by, clock) // all who stand in line are dead
		case next.manager == by.manager && next.seq == strconv.FormatUint(by.seq, 10):
			return result{what: "held", token: m.token(next.token), lease: m.db[by.lock].ttl}.at(m.reply.time)
		case next.manager == by.manager:
			r.turn = next.seq
		}
	}
	r.holder, _ = m.text(by.lock)
	r.lease = m.db[by.lock].ttl
	if c.join {
		shortest, ok := m.db[by.shortest].number()
		r.shortest = by.ttl
		if ok {
			r.shortest = min(shortest, by.ttl)
		}
		if !ok || r.shortest < shortest || m.db[by.queue].ttl < kept(r.lease) {
			keep := min(max(r.lease, 0), 4e12) + 60_000
			m.set(by.shortest, strconv.FormatInt(r.shortest, 10), keep)
			m.expire(by.queue, keep)
		}
	}
	return r.at(m.reply.time)
}

// kept is how long a line has to live at least, for its time to live to be kept as
// it is.
func kept(lease int64) int64 { return min(max(lease, 0), 4e12) + 40_000 }

func (r result) at(time int64) result { r.time = time; return r }

// hold makes the caller the holder of a free key.
func (m *model) hold(by *caller, clock span) result {
	m.set(by.lock, by.value, by.ttl)
	return result{what: "held", token: m.token(m.draw(clock, fenceLag)), lease: by.ttl, alone: true}.at(m.reply.time)
}

func (m *model) release(c call) result {
	by := c.by
	if m.leave(by.queue, c.member) && len(m.db[by.queue].zset) == 0 {
		delete(m.db, by.shortest)
	}
	if holder, taken := m.text(by.lock); !taken || holder != by.value {
		return result{what: "none"}
	}
	if c.foreign {
		return result{what: "another's"}
	}
	clock := span{m.got.began, m.got.ended}
	if m.reply.time != 0 {
		clock = span{m.reply.time, m.reply.time}
	}
	next, found := m.promote(by, clock)
	switch {
	case !found:
		delete(m.db, by.lock)
		if !slices.ContainsFunc(m.db[by.queue].zset, func(s scored) bool { return memberForm.MatchString(s.member) }) {
			delete(m.db, by.shortest)
		}
		return result{what: "freed"}
	case next.manager == by.manager:
		return result{what: "own", seq: next.seq, token: m.token(next.token), value: next.value}.at(m.reply.time)
	}
	return result{what: "handed"}
}

// free is a release where it is simple, and nothing at all elsewhere.
func (m *model) free(c call) result {
	var left []any
	var gone []string
	for i, by := range c.all() {
		if holder, taken := m.text(by.lock); !taken || holder != by.value || len(m.db[by.queue].zset) > 0 {
			left = append(left, int64(i+1))
		} else {
			gone = append(gone, by.lock)
		}
	}
	for _, lock := range gone {
		delete(m.db, lock)
	}
	if len(left) == 0 {
		return result{what: "freed"}
	}
	return freed(left, len(c.all()))
}

func (m *model) extend(c call) result {
	if holder, taken := m.text(c.by.lock); !taken || holder != c.by.value {
		return result{what: "lease", lease: -2}
	}
	m.expire(c.by.lock, max(m.db[c.by.lock].ttl, c.ttl))
	return result{what: "lease", lease: m.db[c.by.lock].ttl}
}

func (m *model) claim(c call, i int) result {
	r := result{what: "taken", time: m.reply.time}
	if c.raise {
		token := m.draw(span{r.time, r.time}, 0)
		m.setFence(token.low)
		m.drawn, m.draws = nil, 0
	}
	if _, taken := m.text(c.by.lock); !taken {
		m.set(c.by.lock, c.by.value, c.by.ttl)
		r.what = "held"
	}
	e, ok := m.db[fence]
	if _, number := e.number(); ok && !number {
		return result{what: "value is not an integer"}
	}
	if !ok {
		e.ttl = -1 // until a script sees to it
	}
	r.token = m.fence() + 1
	m.set(fence, strconv.FormatInt(r.token, 10), e.ttl)
	return r
}

var memberForm = regexp.MustCompile(`(?s)^([^:]*):([0-9]+):([0-9]+):(.*)$`)

// promote makes the first live waiter the holder. The dead before it, and what
// never was a waiter, are gone from the line then. Where nobody lives it stays, and
// lives as long as what is known of it.
func (m *model) promote(by *caller, clock span) (next grant, found bool) {
	line := m.db[by.queue].zset
	for i, s := range line {
		part := memberForm.FindStringSubmatch(s.member)
		if part == nil || part[1] != by.manager && !m.live[part[1]] {
			if len(line) == 1 || i == 0 && m.db[by.queue].ttl < 0 { // alone, it was away for a moment, and the queue with it
				m.expire(by.queue, max(m.db[by.shortest].ttl, 60_000))
			}
			continue
		}
		for _, before := range line[:i] {
			m.leave(by.queue, before.member)
			if memberForm.MatchString(before.member) {
				m.leave(by.skipped, before.member)
				m.enter(by.skipped, before)
				m.expire(by.skipped, 60_000)
			}
		}
		m.leave(by.queue, s.member)
		next.token = m.draw(clock, fenceLag)
		next.manager, next.seq, next.key, next.value = part[1], part[3], by.lock, part[4]
		ttl, _ := strconv.ParseInt(part[2], 10, 64)
		m.set(by.lock, next.value, ttl)
		if next.manager != by.manager {
			m.sent = append(m.sent, next)
		}
		return next, true
	}
	return next, false
}

// draw takes a token: one above the last, or the clock where that is further behind
// it than it may be.
func (m *model) draw(clock span, lag int64) span {
	next := span{m.fence() + 1, m.fence() + 1}
	if m.drawn != nil {
		next = span{m.drawn.low + 1, m.drawn.high + 1}
	}
	switch {
	case next.high < clock.low-lag:
		next = clock
	case next.low < clock.high-lag: // one or the other
		next.high = max(next.high, clock.high)
	}
	m.drawn = &next
	m.draws++
	return next
}

// settle takes over what the fence holds, which is the last token drawn.
func (m *model) settle() {
	if m.drawn == nil {
		return
	}
	token := m.drawn.low
	if after, ok := m.got.state[fence].number(); ok && m.drawn.has(after) {
		token = after
	}
	if m.reply.token != 0 && m.reply.token != token {
		m.faultf("token %d is not the last one drawn, %d", m.reply.token, token)
	}
	m.setFence(token)
}

// setFence sets the fence to the last token drawn. One above the last leaves its time
// to live as it was.
func (m *model) setFence(token int64) {
	ttl := int64(fenceTTL)
	if token == m.fence()+m.draws {
		ttl = m.db[fence].ttl
	}
	m.set(fence, strconv.FormatInt(token, 10), ttl)
}

const fenceLag = 10_000

const fenceTTL = 86_400_000

// fence is the last token drawn, or 0.
func (m *model) fence() int64 {
	n, _ := m.db[fence].number()
	return n
}

// token returns the token of the reply, or what it should have been.
func (m *model) token(want span) int64 {
	if want.has(m.reply.token) {
		return m.reply.token
	}
	m.faultf("token %d is not between %d and %d", m.reply.token, want.low, want.high)
	return want.low
}

func (m *model) text(key string) (string, bool) {
	e, ok := m.db[key]
	if !ok {
		return "", false
	}
	return e.text[0], true
}

func (m *model) set(key, text string, ttl int64) {
	m.db[key] = entry{kind: "string", text: []string{text}, ttl: ttl}
}

func (m *model) expire(key string, ttl int64) {
	if e, ok := m.db[key]; ok {
		e.ttl = ttl
		m.db[key] = e
	}
}

func (m *model) enter(queue string, s scored) {
	e, ok := m.db[queue]
	if !ok {
		e = entry{kind: "zset", ttl: -1}
	}
	e.zset = append(slices.Clone(e.zset), s)
	slices.SortFunc(e.zset, func(a, b scored) int {
		return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(a.member, b.member))
	})
	m.db[queue] = e
}

func (m *model) leave(queue, member string) bool {
	e := m.db[queue]
	line := slices.DeleteFunc(slices.Clone(e.zset), func(s scored) bool { return s.member == member })
	if len(line) == len(e.zset) {
		return false
	}
	if e.zset = line; len(line) > 0 {
		m.db[queue] = e
	} else {
		delete(m.db, queue)
	}
	return true
}

// pass lets d milliseconds go by.
func (m *model) pass(d int64) {
	for key, e := range maps.Clone(m.db) {
		if e.ttl < 0 {
			continue
		}
		if e.ttl -= d; e.ttl > 0 {
			m.db[key] = e
		} else {
			delete(m.db, key)
		}
	}
}
