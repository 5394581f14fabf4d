package aof

import (
	"slices"
	"strings"
)

// Of a slot that is moved from one server of a cluster to another, each of them has a
// part of the history. MIGRATE shows as RESTORE-ASKING at the target, and then as DEL at
// the source.

// Timed are the entries of a server, each with the earliest time at which it may have been
// written: Unix time, ms.
func Timed(entries []Entry, ttl func(value string) (int64, bool)) []TimedEntry {
	log := Replay(entries, ttl)
	all := make([]TimedEntry, len(entries))
	for i, e := range entries {
		all[i].Entry = e
		all[i].At, _ = log.Span(e.Step)
	}
	return all
}

// A TimedEntry is an entry with the earliest time of it.
type TimedEntry struct {
	Entry
	At int64
}

// names are the keys that the entry is about, but for marks.
func (e TimedEntry) names() []string {
	switch {
	case len(e.Args) < 2 || isMarkKey(e.Args[1]):
		return nil
	case e.Args[0] == "DEL" || e.Args[0] == "UNLINK":
		return e.Args[1:]
	}
	return e.Args[1:2]
}

func (e TimedEntry) isMark() bool { return isMark(e.Entry) }

// Moved puts together what two servers wrote about a slot while it was the source's, was
// moved, and until the move was over. The slot's entries are those of which about tells;
// marks are kept, as they tell the time.
//
// What is known of the order: a key is at the source first, and once it is at the target
// it is at the source no more.
func Moved(source, target []TimedEntry, about func(name string) bool) []TimedEntry {
	of := func(e TimedEntry) bool { return !e.isMark() && !slices.ContainsFunc(e.names(), about) }
	source, target = slices.DeleteFunc(slices.Clone(source), of), slices.DeleteFunc(slices.Clone(target), of)

	// What the target wrote long before is of no use here.
	for len(target) > 0 && target[0].isMark() {
		target = target[1:]
	}
	for i := range target {
		target[i].Step = -target[i].Step // not to be taken for one with the source's of that number
	}
	arrived := make(map[string]bool)
	target = slices.DeleteFunc(target, func(e TimedEntry) bool {
		restored := strings.HasPrefix(e.Args[0], "RESTORE")
		if restored {
			arrived[e.Args[1]] = true
		}
		return restored
	})
	last := make(map[string]int) // entry of the source that is about a key
	for i, e := range source {
		for _, name := range e.names() {
			last[name] = i
		}
	}
	for name := range arrived {
		if i, ok := last[name]; ok && source[i].Args[0] == "DEL" { // the slot's, by MIGRATE
			args := slices.DeleteFunc(slices.Clone(source[i].Args), func(arg string) bool { return arg == name })
			source[i].Args = args
		}
	}

	var all []TimedEntry
	from := 0
	upTo := func(i int) { // no step is torn apart
		for ; from < i || from > 0 && from < len(source) && source[from].Step == source[from-1].Step; from++ {
			if e := source[from]; len(e.Args) > 1 {
				all = append(all, e)
			}
		}
	}
	for i := 0; i < len(target); {
		end := i + 1
		for end < len(target) && target[end].Step == target[i].Step {
			end++
		}
		for _, e := range target[i:end] {
			for _, name := range e.names() {
				if at, ok := last[name]; ok {
					upTo(at + 1)
				}
			}
		}
		for from < len(source) && source[from].At <= target[i].At {
			upTo(from + 1)
		}
		all = append(all, target[i:end]...)
		i = end
	}
	upTo(len(source))
	return all
}

// Untimed returns the entries of all parts, numbered anew.
func Untimed(parts ...[]TimedEntry) []Entry {
	var all [][]Entry
	for _, part := range parts {
		var entries []Entry
		for _, e := range part {
			entries = append(entries, e.Entry)
		}
		all = append(all, entries)
	}
	return join(all...)
}

// AfterMark splits entries behind the mark with that number.
func AfterMark(entries []TimedEntry, mark string) (until, after []TimedEntry, ok bool) {
	i := slices.IndexFunc(entries, func(e TimedEntry) bool { return e.isMark() && len(e.Args) > 2 && e.Args[2] == mark })
	return entries[:i+1], entries[i+1:], i >= 0
}
