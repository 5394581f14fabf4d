package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redislock/redislock/test/aof"
)

// A slotMove is a move of a key's slot from one pair to another.
type slotMove struct {
	key      int // of the names
	from, to int // of the pairs

	over [2]int64 // the marks that were set at either, when it was over
}

// moveSlot moves the slot of a key to another master, be that the one that it was at first
// or not. Meanwhile the key is at the one or the other, or some of its side keys are.
func moveSlot(e *episode) {
	s := e.site.(*clusterSite)
	m := slotMove{key: int(e.below(int64(len(s.names))))}
	m.from = s.at[m.key]
	m.to = (m.from + 1 + int(e.below(int64(len(s.pairs)-1)))) % len(s.pairs)
	e.count("slot moved", "")
	slot, to := keySlot(s.names[m.key]), s.pairs[m.to].master().Server
	if e.below(2) == 0 {
		e.must(s.BeginMove(slot, to))
		time.Sleep(e.upTo(maxTTL)) // what is created now is created there
	}
	e.must(s.Move(slot, to))
	for i, at := range []int{m.from, m.to} {
		p := s.pairs[at]
		e.must(until("a mark is set", func(context.Context) (err error) {
			m.over[i], err = p.setMark()
			return err
		}))
	}
	s.mu.Lock()
	s.at[m.key], s.moves = m.to, append(s.moves, m)
	s.mu.Unlock()
	time.Sleep(e.upTo(maxTTL))
}

// moves are what befalls a cluster that is resharded, also amid other faults of its
// clients and the network. (A server that refuses what another moves to it leaves a key
// at both.)
func moves(others []fault) []fault {
	others = slices.DeleteFunc(slices.Clone(others), func(f fault) bool { return f.ofServers })
	return []fault{
		{name: "slots moved", inject: moveSlot},
		{name: "slots moved amid other faults", inject: func(e *episode) {
			var both sync.WaitGroup
			both.Go(func() { others[e.below(int64(len(others)))].inject(e) })
			moveSlot(e)
			both.Wait()
		}},
	}
}

// followSlots puts the history of each key together from those of the pairs, of which
// each has a part.
func (s *clusterSite) followSlots(pairs []record, ttl func(string) (int64, bool)) (all []record, err error) {
	entries := make([][]aof.Entry, len(pairs))
	for i, r := range pairs {
		if r.lost > 0 {
			return nil, fmt.Errorf("%d writes were lost amid moves of slots", r.lost)
		}
		entries[i] = aof.Timed(r.entries, ttl)
	}
	for key, name := range s.names {
		left, at := append([][]aof.Entry(nil), entries...), key
		about := func(other string) bool { return keySlot(other) == keySlot(name) }
		var parts [][]aof.Entry
		for _, m := range s.moves {
			if m.key != key {
				continue
			}
			var until [2][]aof.Entry
			for i, pair := range []int{m.from, m.to} {
				var ok bool
				if until[i], left[pair], ok = aof.AfterMark(left[pair], fmt.Sprint(m.over[i])); !ok {
					return nil, fmt.Errorf("%s: the mark after a move is missing", s.names[pair])
				}
			}
			parts, at = append(parts, aof.Moved(until[0], until[1], about)), m.to
		}
		parts = append(parts, aof.Moved(left[at], nil, about))
		all = append(all, record{keys: []string{name}, entries: aof.Renumbered(parts...)})
	}
	return all, nil
}

// keySlot returns the hash slot of a key.
func keySlot(key string) int {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			key = tag
		}
	}
	crc := uint16(0)
	for _, c := range []byte(key) {
		crc ^= uint16(c) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			crc <<= 1
			if carry {
				crc ^= 0x1021
			}
		}
	}
	return int(crc % 16384)
}
