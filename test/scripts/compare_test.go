package scripts

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// sameResult says in which way the results of both servers differ. Times,
// tokens and scores must differ: the models look at them.
func sameResult(a, b result, slack int64) string {
	for _, r := range []*result{&a, &b} {
		r.time, r.token, r.score = 0, sign(r.token), sign(r.score)
	}
	if within(a.lease, b.lease, slack) {
		b.lease = a.lease
	}
	if a != b {
		return fmt.Sprintf("the replies differ:\n  miniredis %+v\n  redis     %+v", a, b)
	}
	return ""
}

func sign(n int64) int64 { return min(1, max(-1, n)) }

// within tells whether a TTL is what it should be, after up to slack ms. What
// should be 1 may be 2: see call.
func within(want, got, slack int64) bool {
	return want == got || want >= 0 && got >= 0 && got <= want+1 && got >= want-slack
}

// sameState says in which way the states of both servers differ.
func sameState(a, b state, slack int64) string {
	for _, key := range slices.Sorted(maps.Keys(merged(a, b))) {
		x, y := a[key], b[key]
		if key == fence && x.stamped() && y.stamped() { // each by its own server's clock
			x.text, x.ttl = y.text, y.ttl
		}
		if x.kind != y.kind || !slices.Equal(x.text, y.text) || !slices.Equal(x.members(), y.members()) ||
			!within(x.ttl, y.ttl, slack) {
			return fmt.Sprintf("the key %q differs:\n  miniredis %+v\n  redis     %+v", key, x, y)
		}
	}
	return ""
}

func merged(a, b state) state {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

func (e entry) members() (all []string) {
	for _, s := range e.zset {
		all = append(all, s.member)
	}
	return all
}

// sameMessages says in which way the messages of both servers differ.
func sameMessages(a, b []message) string {
	if !slices.EqualFunc(a, b, func(x, y message) bool {
		_, restX := cutNumbers(x.text)
		_, restY := cutNumbers(y.text)
		return x.channel == y.channel && restX == restY
	}) {
		return fmt.Sprintf("the messages differ:\n  miniredis %q\n  redis     %q", a, b)
	}
	return ""
}

// cutNumbers cuts a grant message after token, seconds and microseconds.
func cutNumbers(text string) (numbers []string, rest string) {
	parts := strings.SplitN(text, " ", 4)
	return parts[:len(parts)-1], parts[len(parts)-1]
}

// check compares an answer with what the model has done.
func (m *model) check(want result) string {
	if want != m.reply {
		m.faultf("replied %+v\n     want %+v", m.reply, want)
	}
	m.checkMessages()
	if diff := m.checkState(); diff != "" {
		m.faultf("%s", diff)
	}
	return strings.Join(m.faults, "\n")
}

func (m *model) checkState() string {
	for _, key := range slices.Sorted(maps.Keys(merged(m.db, m.got.state))) {
		want, got := m.db[key], m.got.state[key]
		if key == fence && within(want.ttl, got.ttl, m.got.slack()) { // see alignFence
			got.ttl = want.ttl
		}
		if want.kind != got.kind || want.ttl != got.ttl || !slices.Equal(want.text, got.text) || !slices.Equal(want.zset, got.zset) {
			return fmt.Sprintf("holds under %q %+v\n  want %+v", key, got, want)
		}
	}
	return ""
}

func (m *model) checkMessages() {
	if len(m.sent) != len(m.got.messages) {
		m.faultf("published %q\n     want %+v", m.got.messages, m.sent)
		return
	}
	for i, want := range m.sent {
		got := m.got.messages[i]
		numbers, rest := cutNumbers(got.text)
		if got.channel != channel+want.manager ||
			rest != fmt.Sprintf("%s %d %s%s", want.seq, len(want.key), want.key, want.value) {
			m.faultf("published %q\n     want %+v", got, want)
			continue
		}
		var n [3]int64 // token, seconds, microseconds
		for i, text := range numbers {
			var err error
			if n[i], err = strconv.ParseInt(text, 10, 64); err != nil {
				m.faultf("published %q: %v", got, err)
			}
		}
		if at := n[1]*1_000_000 + n[2]; n[2] >= 1_000_000 || !(span{m.got.began, m.got.ended}).has(at) ||
			!want.token.has(n[0]) || n[0] != m.fence() || n[0] < at-fenceLag {
			m.faultf("published %q\n     want a time between %d and %d, and token %+v", got, m.got.began, m.got.ended, want.token)
		}
	}
}
