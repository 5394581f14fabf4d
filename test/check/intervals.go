package check

import (
	"cmp"
	"slices"
	"sort"
)

// intervals is a set of times. It is sorted once, after the last was added.
type intervals struct{ list []interval }

type interval struct{ from, to int64 }

func (s *intervals) add(from, to int64) {
	if from < to {
		s.list = append(s.list, interval{from, to})
	}
}

// sort puts them in order and joins those that touch.
func (s *intervals) sort() {
	slices.SortFunc(s.list, func(a, b interval) int { return cmp.Compare(a.from, b.from) })
	merged := s.list[:0]
	for _, one := range s.list {
		if n := len(merged); n > 0 && one.from <= merged[n-1].to {
			merged[n-1].to = max(merged[n-1].to, one.to)
		} else {
			merged = append(merged, one)
		}
	}
	s.list = merged
}

// overlap returns how much of the time in between is in the set.
func (s *intervals) overlap(from, to int64) (total int64) {
	first := sort.Search(len(s.list), func(i int) bool { return s.list[i].to > from })
	for _, one := range s.list[first:] {
		if one.from >= to {
			break
		}
		total += max(0, min(one.to, to)-max(one.from, from))
	}
	return total
}

// without returns what of s is not in other. Both are sorted.
func (s *intervals) without(other *intervals) (rest intervals) {
	next := 0
	for _, one := range s.list {
		for next < len(other.list) && other.list[next].to <= one.from {
			next++
		}
		for i := next; one.from < one.to; i++ {
			if i == len(other.list) || other.list[i].from >= one.to {
				rest.add(one.from, one.to)
				break
			}
			rest.add(one.from, other.list[i].from)
			one.from = max(one.from, other.list[i].to)
		}
	}
	return rest
}
