package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redislock/redislock/test/aof"
	"github.com/redislock/redislock/test/history"
)

// Story tells a violation: what the operations concerned, and their processes,
// did and saw, and what the append-only file has of them, a line each, in the
// order of time. Times are in ms from the first line. Those of the file are the
// earliest possible; "~" marks those that may have been more than 2 ms later.
func Story(in Input, v Violation) string {
	r := newRun(in)
	t := teller{run: r}
	ops := make(map[string]bool)
	for _, name := range v.Ops {
		ops[name] = true
	}
	t.events(ops)
	for _, name := range r.keys {
		if log := r.log.Keys[name]; log != nil && (v.Key == "" || v.Key == name) {
			t.facts(log, ops)
		}
	}
	slices.SortStableFunc(t.lines, func(a, b storyLine) int { return cmp.Compare(a.at, b.at) })
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n", v)
	for _, line := range t.lines {
		fmt.Fprintf(&b, "%11.3f%s  %s\n", float64(line.at-t.lines[0].at)/float64(time.Millisecond), line.mark, line.text)
	}
	return b.String()
}

type teller struct {
	*run
	lines    []storyLine
	from, to int64 // of the operations' own events
}

type storyLine struct {
	at   int64
	mark string
	text string
}

func (t *teller) events(ops map[string]bool) {
	processes := make(map[string]bool)
	for i := range t.Events {
		e := &t.Events[i]
		if !ops[e.Op] {
			continue
		}
		if t.from == 0 {
			t.from = e.At
		}
		t.to = max(t.to, e.At, e.ValidUntil)
		if e.Kind != history.Accepted && e.Kind != history.Refused {
			processes[e.Process] = true
		}
		t.lines = append(t.lines, storyLine{e.At, " ", t.describe(e)})
	}
	for i := range t.Events {
		e := &t.Events[i]
		within := e.At >= t.from && e.At <= t.to
		switch e.Kind {
		case history.Fault, history.Healed:
			if within {
				t.lines = append(t.lines, storyLine{e.At, " ", t.describe(e)})
			}
		case history.Killed, history.Stopped, history.Resumed, history.Stall, history.Cut:
			if within && processes[e.Process] {
				t.lines = append(t.lines, storyLine{e.At, " ", t.describe(e)})
			}
		}
	}
}

func (t *teller) describe(e *history.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-10s %-9s", e.Process, e.Kind)
	word := func(name string, value any) { fmt.Fprintf(&b, " %s=%v", name, value) }
	if e.Op != "" {
		b.WriteString(" " + e.Op)
	}
	if e.Method != "" {
		word("method", e.Method)
	}
	if e.TTL != 0 {
		word("ttl", time.Duration(e.TTL))
	}
	if e.Renew {
		word("renew", true)
	}
	if e.Token != 0 {
		word("token", e.Token)
	}
	if e.Highest != 0 {
		word("highest", e.Highest)
	}
	if e.ValidUntil != 0 {
		word("valid for", milliseconds(e.ValidUntil-e.At))
	}
	if e.Kind == history.Written && e.Err == "" {
		word("accepted", e.Accepted)
	}
	if e.Took != 0 {
		word("took", time.Duration(e.Took))
	}
	if e.Name != "" {
		b.WriteString(" " + e.Name)
	}
	if e.Err != "" {
		word("err", e.Err)
	}
	if e.Is != "" {
		word("is", e.Is)
	}
	return b.String()
}

func (t *teller) facts(key *aof.Key, ops map[string]bool) {
	for _, f := range key.Facts {
		from, to := t.span(f.Step)
		from = max(t.notBefore(&f, to), min(from, to))
		everybody := f.Kind == aof.Flush || f.Kind == aof.Restart || f.Kind == aof.Rewind || f.Kind == aof.QueueEnd
		if !ops[f.Value] && !ops[f.Over] && (!everybody || from > t.to || to < t.from) {
			continue
		}
		mark := " "
		if to-from > 2*int64(time.Millisecond) {
			mark = "~"
		}
		text := fmt.Sprintf("%-10s %-9v %s", "redis", f.Kind, f.Value)
		switch f.Kind {
		case aof.Set:
			text += fmt.Sprintf(" until %s", t.relative(f.Deadline))
			if f.Over != "" {
				text += " over " + f.Over
			}
		case aof.Prolong:
			text += fmt.Sprintf(" until %s", t.relative(f.Deadline))
		case aof.Join:
			text += fmt.Sprintf(" score=%.0f", f.Score)
		case aof.Pop:
			if !f.Granted {
				text += " skipped"
			}
		}
		if f.Waiting > 0 {
			text += fmt.Sprintf(" (%d in line)", f.Waiting)
		}
		t.lines = append(t.lines, storyLine{from, mark, fmt.Sprintf("%s  #%d", text, f.Serial)})
	}
}

// notBefore returns a time before which a fact makes no sense: before it was
// asked for, as far as that is known to have been before latest.
func (t *teller) notBefore(f *aof.Fact, latest int64) (from int64) {
	o := t.ops[f.Value]
	if o == nil {
		return 0
	}
	reasons := []*history.Event{o.call}
	switch f.Kind {
	case aof.Prolong:
		reasons = append(reasons, o.extends...)
	case aof.Delete:
		reasons = append(reasons, o.unlock)
	case aof.Unlink:
		if at := t.mono(f.Before); at <= latest {
			from = at
		}
	}
	for _, e := range reasons {
		if e != nil && e.At <= latest && e.Kind != history.Extended {
			from = max(from, e.At)
		}
	}
	return from
}

// relative writes a deadline as the time since the operations' first event.
func (t *teller) relative(ms int64) string {
	if ms == 0 {
		return "ever"
	}
	return fmt.Sprintf("%.0f", float64(t.mono(ms)-t.from)/float64(time.Millisecond))
}
