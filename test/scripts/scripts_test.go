// Package scripts runs the library's Lua scripts, over random sequences of
// calls, on miniredis, on a redis-server and against a model of the line, and
// demands that all three agree: on the replies, on what is published, and on
// every key that is left.
//
// Where miniredis differs from Redis, as found here:
//   - What redis.call raises begins with the error's own word on Redis 7
//     ("WRONGTYPE …"), on miniredis with "ERR Error compiling script (new
//     function): " and ends with a stack trace: see kindOf. Code that looks at
//     the beginning of errors cannot be tested on miniredis.
//   - Between the last whole millisecond and the next a key is there with PTTL 0
//     on Redis; on miniredis it goes when nothing is left. Time passes here in
//     whole milliseconds, and then some.
//   - PEXPIRE key 1 may delete the key at once on Redis, if a millisecond ends
//     just then; SET PX 1 does not, nor does 2. Here it is not used.
//   - TIME may differ between two calls within a script on Redis; on miniredis
//     it does not while SetTime is in force.
package scripts

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

type texts struct{ acquire, release, free, extend, raise string }

// readScripts puts the scripts together as script.go does.
func readScripts(t *testing.T) *texts {
	include := regexp.MustCompile(`(?m)^\s*-- include (\S+)\n`)
	var read func(name string) string
	read = func(name string) string {
		text, err := os.ReadFile("../../lua/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return include.ReplaceAllStringFunc(string(text), func(line string) string {
			return read(include.FindStringSubmatch(line)[1])
		})
	}
	return &texts{read("acquire.lua"), read("release.lua"), read("free.lua"), read("extend.lua"), read("raise.lua")}
}

func TestScriptsAgreeWithTheModelOnBothServers(t *testing.T) {
	if !flagGiven("rapid.checks") {
		if err := flag.Set("rapid.checks", "120"); err != nil {
			t.Fatal(err)
		}
	}
	scripts, servers := readScripts(t), startServers(t)
	cases, blurred, seen := 0, 0, make(map[string]int)
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, scripts, servers)
		cases++
		defer func() {
			for what, n := range w.seen {
				seen[what] += n
			}
			if w.over {
				blurred++
			}
		}()
		t.Repeat(w.actions())
	})
	t.Logf("%d cases; %d were left when a lease was shorter than the call took; outcomes: %v", cases, blurred, seen)
	for _, what := range []string{"held", "taken", "behind", "none", "freed", "handed", "own", "declined", "some", "lease", "WRONGTYPE", "distrusted", "raised after a loss", "kept"} {
		if seen[what] == 0 && !t.Failed() {
			t.Errorf("%q never came to pass: the calls do not lead there", what)
		}
	}
}

func flagGiven(name string) (given bool) {
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	return given
}

// A world is the two servers with their models, and those who call.
type world struct {
	scripts  *texts
	servers  [2]*server
	models   [2]*model
	managers []string
	places   []place
	callers  []*caller
	last     *call
	highest  [2]int64            // token
	lost     [2]bool             // the fence was lost since
	floors   [2]map[string]int64 // by manager: the fence was raised to it
	wentBack bool                // the clock did
	seen     map[string]int      // outcomes
	over     bool                // see blurred
}

// bytes that scripts, patterns and protocols may trip over.
var pieces = []string{
	":", "::", " ", "\x00", "\xff", "\xc3(", "{", "}", "\r\n", "%", "%d", "(.*)", "1", "-", "a", "'", `"`, `\`, "$", "é", "[^:]*", "\n",
}

func anyText() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.Map(rapid.SliceOfN(rapid.SampledFrom(pieces), 1, 6), func(p []string) string { return strings.Join(p, "") }),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, 20), func(b []byte) string { return string(b) }),
		// Looks like what the library itself makes of such texts.
		rapid.SampledFrom([]string{"m:5:1:a", "5:1:a", "1:a", ":5:1:a", "1 1 0 1 1 ka", "t", fence + "x"}),
	)
}

func anyTTL() *rapid.Generator[int64] {
	return rapid.OneOf(
		rapid.SampledFrom([]int64{1, 2, 999, 1000, 1001, 60_000, 86_400_000, 1 << 31, 1 << 32, maxTTL - 1, maxTTL}),
		rapid.Int64Range(500, 100_000), rapid.Int64Range(10_000, maxTTL),
	)
}

func newWorld(t *rapid.T, scripts *texts, servers [2]*server) *world {
	w := &world{scripts: scripts, servers: servers, managers: []string{"m", "mm", "Zm9vYmFyLWJhei1xdXgtMQ"}, seen: make(map[string]int)}
	for i, s := range servers {
		s.reset(t)
		w.models[i] = &model{db: make(state), live: make(map[string]bool)}
		w.floors[i] = make(map[string]int64)
	}
	for _, manager := range w.managers {
		if rapid.Bool().Draw(t, "listens") {
			w.toggle(t, manager)
		}
	}
	names := rapid.SliceOfNDistinct(anyText(), 2, 2, rapid.ID[string]).Draw(t, "lock keys")
	for _, name := range names {
		if strings.HasPrefix(name, "redislock:") {
			name = "x" + name
		}
		w.places = append(w.places, placeOf(name))
	}
	values := rapid.SliceOfNDistinct(anyText(), 7, 7, rapid.ID[string]).Draw(t, "values")
	usual := anyTTL().Draw(t, "usual ttl")
	for i, value := range values {
		w.callers = append(w.callers, &caller{
			place:   w.places[min(i/5, 1)],
			manager: w.managers[i*i%3], // of those who share a place, most
			value:   value,
			ttl:     rapid.OneOf(rapid.Just(usual), rapid.Just(usual), anyTTL()).Draw(t, "ttl"),
			seq:     rapid.SampledFrom([]uint64{1, 10, 1 << 53, 1<<63 - 20}).Draw(t, "seq") + uint64(i),
		})
	}
	return w
}

// do makes the call on both servers and checks what comes of it.
func (w *world) do(t *rapid.T, c call) {
	t.Helper()
	w.last = &c
	w.servers[0].clock++ // as any other: who came later has a later time
	var got [2]answer
	for i, s := range w.servers {
		got[i] = s.call(t, c.commands(w.scripts, i)...)
	}
	if w.blurred(got) {
		return
	}

	var results [2]result
	for i := range results {
		results[i] = w.understand(t, i, c, got[i])
	}
	slack := got[1].slack()
	if w.mayRefresh(c, results[0], slack) {
		w.over = true
		return
	}
	if diff := sameResult(results[0], results[1], slack) +
		sameState(got[0].state, got[1].state, slack) + sameMessages(got[0].messages, got[1].messages); diff != "" {
		t.Fatalf("%v\n%s\nreplies: %q\n         %q", c, diff, got[0].replies, got[1].replies)
	}
	w.seen[results[0].what]++
	if c.unsure && c.score[0] == 0 && results[0].added && slices.ContainsFunc(w.models[0].db[c.by.skipped].zset, func(s scored) bool {
		return s.member == c.by.member()
	}) {
		w.seen["old place"]++
	}
	results[1].lease = results[0].lease // that of the server whose time stands still
	w.align(got)

	for i, m := range w.models {
		before := m.db
		if w.spoilt(c.by.place) {
			m.db = got[i].state
			if fault := safe(before, m, c, results[i]); fault != "" {
				t.Fatalf("%s, with a key of the wrong type: %v\n%s\nbefore %+v\nafter  %+v", w.servers[i].name, c, fault, before, m.db)
			}
		} else if fault := m.check(m.step(c, i, got[i], results[i])); fault != "" {
			t.Fatalf("%s: %v\n%s\nreplies: %q", w.servers[i].name, c, fault, got[i].replies)
		}
		if m.putBack {
			w.seen["put back"]++
		}
		w.rising(t, i, c, results[i])
		if c.verb == "acquire" && c.join && (results[i].what == "taken" || results[i].what == "behind") {
			c.by.joined, c.by.score[i] = true, results[i].score
		}
	}
	w.hold()
}

// hold has the servers' keys live for as long as the models say.
func (w *world) hold() {
	w.alignFence()
	for i, s := range w.servers {
		s.hold(w.models[i].db)
	}
}

// mayRefresh tells whether a line's time to live is so near the end of what is kept
// as it is that the time which the call took decides.
func (w *world) mayRefresh(c call, r result, slack int64) bool {
	line, ok := w.models[0].db[c.by.queue]
	if c.verb != "acquire" || !c.join || r.what != "taken" || !ok {
		return false
	}
	if rest := line.ttl - kept(r.lease); rest > slack {
		w.seen["kept"]++
		return false
	} else {
		return rest >= -slack
	}
}

func (w *world) understand(t *rapid.T, i int, c call, a answer) result {
	defer func() {
		if p := recover(); p != nil {
			t.Fatalf("%s: %v\nreplied %q: %v", w.servers[i].name, c, a.replies, p)
		}
	}()
	return understand(c, a.replies)
}

// blurred tells whether a lease may or may not have run out on the redis-server
// while the call ran. Nothing more can be said in this case then.
func (w *world) blurred(got [2]answer) bool {
	for _, st := range []state{w.models[0].db, got[0].state} {
		for _, e := range st {
			w.over = w.over || e.ttl >= 0 && e.ttl*1000 <= got[1].took
		}
	}
	return w.over
}

// align gives the redis-server's keys the TTLs that they would have had without
// the time that the call took.
func (w *world) align(got [2]answer) {
	for key, e := range got[1].state {
		if key != fence {
			e.ttl = got[0].state[key].ttl
			got[1].state[key] = e
		}
	}
}

// alignFence does so for the fence, once the models have looked at it: whether a call
// sets it anew depends on what each server's clock says.
func (w *world) alignFence() {
	db := w.models[1].db
	if e, ok := db[fence]; ok {
		e.ttl = w.models[0].db[fence].ttl
		db[fence] = e
	}
}

// spoilt tells whether a key that the scripts use is of the wrong type.
func (w *world) spoilt(p place) bool {
	db := w.models[0].db
	wrong := func(key, kind string) bool { e, ok := db[key]; return ok && e.kind != kind }
	return wrong(p.lock, "string") || wrong(p.queue, "zset") || wrong(fence, "string") || wrong(p.shortest, "string") || wrong(p.skipped, "zset")
}

// safe says what must not happen even if a key is of the wrong type, about which
// the model has nothing more to say.
func safe(before state, m *model, c call, r result) string {
	by := c.by
	was, is := before[by.lock], m.db[by.lock]
	holder := func(e entry) string {
		if e.kind != "string" {
			return e.kind
		}
		return "=" + e.text[0]
	}
	changed := holder(was) != holder(is)
	waits := slices.ContainsFunc(before[by.queue].zset, func(s scored) bool {
		part := memberForm.FindStringSubmatch(s.member)
		return part != nil && holder(is) == "="+part[4] && (part[1] == by.manager || m.live[part[1]])
	})
	switch {
	case was.kind == "list" && changed:
		return "what is no lock was overwritten"
	case changed && was.kind != "" && !slices.ContainsFunc(c.all(), func(c *caller) bool { return holder(was) == "="+c.value }):
		return "the lock was taken from its holder"
	case changed && is.kind != "" && holder(is) != "="+by.value && !waits:
		return "the lock went to somebody who did not wait for it"
	case changed && is.kind != "" && is.ttl < 0:
		return "the lease has no end"
	case r.what == "held" && holder(is) != "="+by.value:
		return "the caller was told that it holds the lock"
	case was.kind == "list" && c.verb == "free" && r.what != "declined":
		return "what is no lock was released"
	case was.kind == "list" && (c.verb == "acquire" || c.verb == "extend") && r.what != "WRONGTYPE":
		return "what is no lock gave no error"
	case was.kind == "list" && c.verb == "release" && before[by.queue].kind != "list" && r.what != "none":
		return "the lock was lost, which is no error of a release"
	case holder(was) == "="+by.value && c.verb == "release" && before[by.queue].kind == "list" && c.member == "" && !c.foreign && r.what != "freed":
		return "what is no queue kept the lock from being released"
	}
	return ""
}

// rising checks that tokens rise, over a loss of the fence too, unless the clock
// was set back. A claim that finds no fence begins one, and draws a token that is
// too low: its manager knows how far the fence was raised before, and has a script
// draw another.
func (w *world) rising(t *rapid.T, i int, c call, r result) {
	w.noteLoss()
	if c.raise && r.token != 0 {
		w.floors[i][c.by.manager] = max(w.floors[i][c.by.manager], r.time)
	}
	floor, raised := w.floors[i][c.by.manager]
	if r.token == 0 || c.verb == "claim" && (r.what != "held" || !raised || r.token <= floor) {
		if c.verb == "claim" && r.what == "held" && raised {
			w.seen["distrusted"]++
		}
		return
	}
	if c.verb == "claim" && w.lost[i] {
		w.seen["raised after a loss"]++
	}
	if w.lost[i] && w.wentBack {
		w.highest[i] = 0
	}
	if r.token <= w.highest[i] {
		t.Fatalf("%s: %v\ntoken %d after %d", w.servers[i].name, c, r.token, w.highest[i])
	}
	w.highest[i], w.lost[i] = r.token, false
}

func (w *world) noteLoss() {
	for i, m := range w.models {
		if n, ok := m.db[fence].number(); ok && n >= w.highest[i] {
			continue
		}
		w.lost[i] = true
		// Tokens are drawn less than once in a microsecond, but for clocks that
		// stand still.
		if !w.wentBack {
			w.servers[i].clock = max(w.servers[i].clock, w.highest[i])
		}
	}
}
