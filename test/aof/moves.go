package aof

import (
	"slices"
	"strings"
)

// Of a slot that is moved from one server of a cluster to another, each of them has a
// part of the history. MIGRATE shows as RESTORE-ASKING at the target, and then as DEL at
// the source.

// Timed returns the entries of a server with the times that are known of each.
func Timed(entries []Entry, ttl func(value string) (int64, bool)) []Entry {
	log := Replay(entries, ttl)
	all := slices.Clone(entries)
	for i := range all {
		all[i].Earliest, all[i].Latest = log.Span(all[i].Step)
	}
	return all
}

// names are the keys that the entry is about, but for marks.
func (e Entry) names() []string {
	switch {
	case len(e.Args) < 2 || isMarkKey(e.Args[1]):
		return nil
	case e.Args[0] == "DEL" || e.Args[0] == "UNLINK":
		return e.Args[1:]
	}
	return e.Args[1:2]
}

// Moved puts together what two servers wrote about a slot while it was the source's, was
// moved, and until the move was over. The slot's entries are those of which about tells.
//
// What is known of the order: a key is at the source first, and once it is at the target
// it is at the source no more.
func Moved(source, target []Entry, about func(name string) bool) []Entry {
	others := func(e Entry) bool { return !slices.ContainsFunc(e.names(), about) }
	source, target = slices.DeleteFunc(slices.Clone(source), others), slices.DeleteFunc(slices.Clone(target), others)
	for i := range target {
		target[i].Step = -target[i].Step // not to be taken for one with the source's of that number
	}
	arrived := make(map[string]bool)
	target = slices.DeleteFunc(target, func(e Entry) bool {
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

	var all []Entry
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
		for from < len(source) && source[from].Earliest <= target[i].Earliest {
			upTo(from + 1)
		}
		all = append(all, target[i:end]...)
		i = end
	}
	upTo(len(source))
	return all
}

// Renumbered returns the entries of all parts, numbered anew.
func Renumbered(parts ...[]Entry) []Entry { return join(parts...) }

// AfterMark splits entries behind the mark with that number.
func AfterMark(entries []Entry, mark string) (until, after []Entry, ok bool) {
	i := slices.IndexFunc(entries, func(e Entry) bool { return isMark(e) && len(e.Args) > 2 && e.Args[2] == mark })
	return entries[:i+1], entries[i+1:], i >= 0
}
