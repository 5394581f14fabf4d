package check

import (
	"container/heap"
	"strings"

	"github.com/redislock/redislock/test/aof"
)

// checkOrder follows the line for every key.
//
// The order promised is that in which Redis received the requests that join: that
// of each value's first ZADD. A waiter that was thrown out of the line (skipped
// because its subscription was cut, or the queue was lost) joins again with its
// old score, ahead of all who came later; until it has, those may pass it. So at
// each grant, whoever of those in the line joined first must get it. This looks
// at the first ZADD and not at the scores, and thereby checks the scores, too: a
// score that is out of order, or not the old one, has the wrong one popped.
//
// A waiter that has become the holder has had its turn. If it never heard of that,
// and its lease is over, it looks at the line again, in its old place as well; but
// if the answer to its joining was lost, too, nobody knows that place any more, and
// it joins anew. Nor has a place to keep who joined at a master that was replaced, and
// of whom the one in its place had not heard: those who joined there may be before him.
//
// Besides:
//   - nobody who has not joined gets the key over the heads of those who have,
//     unless its lease ended, or another program deleted it, just before;
//   - a release that leaves the key free leaves nobody in the line but those whom
//     Redis does not reach (G3);
//   - a waiter whose process nothing was done to is never skipped, keeps its
//     score when it joins again, and does not lose the whole queue (G4).
func checkOrder(r *run) {
	for _, name := range r.keys {
		if key := r.log.Keys[name]; key != nil {
			l := line{run: r, key: key, waiters: make(map[string]*waiter)}
			for i := range key.Facts {
				l.apply(&key.Facts[i])
			}
		}
	}
}

// line is the line for one key, by first ZADD.
type line struct {
	*run
	key     *aof.Key
	waiters map[string]*waiter // all that ever joined
	places  int                // how many were given away
	inLine  waiterHeap         // may hold some that have left
	count   int                // how many are in line
	freed   freeing            // why the key is free, if it is
}

type waiter struct {
	value  string
	op     *op
	place  int // by first ZADD
	step   int // of that
	score  float64
	inLine bool
	served bool // has been the holder
	adrift bool // it joined a line that was lost: there is no place that it has to keep
}

type freeing int

const (
	never freeing = iota
	byRelease
	otherwise // by expiry, another program, or a fault
)

func (l *line) apply(f *aof.Fact) {
	w := l.waiters[f.Value]
	switch f.Kind {
	case aof.Join:
		l.join(f, w)
	case aof.Leave:
		l.leave(w)
	case aof.Pop:
		if w == nil {
			return
		}
		if f.Granted {
			l.granted(f, w)
		} else {
			l.skipped(f, w)
		}
		l.leave(w)
	case aof.Set:
		l.set(f)
	case aof.Delete:
		l.deleted(f)
	case aof.Unlink:
		l.freed = otherwise
	case aof.Rewind: // whoever is in line now joins next
		for _, fork := range l.log.Forks {
			for _, w := range l.waiters {
				w.adrift = w.adrift || fork.Rewound == f.Step && w.step > fork.Forked
			}
		}
		fallthrough
	case aof.Flush, aof.Restart:
		l.freed = otherwise
		l.empty()
	case aof.QueueEnd:
		l.queueEnd(f)
	}
}

func (l *line) join(f *aof.Fact, w *waiter) {
	if w != nil {
		l.examined("G4", "places kept", 1)
		// The reply that named the score may have been lost with the queue.
		if f.Score != w.score && w.op != nil && l.undisturbed(w.op.process) && !l.SecondClass.any() {
			l.violation("G4", "places kept", l.key.Name, []string{w.value},
				"%s joined with score %.0f and again (entry %d) with %.0f", w.value, w.score, f.Serial, f.Score)
		}
	}
	if w == nil || w.served && !w.inLine && f.Score != w.score {
		w = &waiter{value: f.Value, op: l.ops[f.Value], place: l.places, step: f.Step, score: f.Score}
		l.waiters[f.Value] = w
		l.places++
	}
	if !w.inLine {
		w.inLine = true
		l.count++
		heap.Push(&l.inLine, w)
	}
}

func (l *line) leave(w *waiter) {
	if w != nil && w.inLine {
		w.inLine = false
		l.count--
	}
}

func (l *line) empty() {
	for _, w := range l.inLine {
		w.inLine = false
	}
	l.inLine, l.count = nil, 0
}

// head returns who of those in line joined first.
func (l *line) head() *waiter {
	for len(l.inLine) > 0 && (!l.inLine[0].inLine || l.inLine[0].adrift) {
		heap.Pop(&l.inLine)
	}
	if len(l.inLine) == 0 {
		return nil
	}
	return l.inLine[0]
}

func (l *line) granted(f *aof.Fact, w *waiter) {
	w.served = true
	l.examined("G2", "first come, first served", 1)
	if head := l.head(); head != nil && head.place < w.place && !w.adrift {
		l.violation("G2", "first come, first served", l.key.Name, []string{head.value, w.value},
			"%s joined before %s, which got the lock first (entry %d)", head.value, w.value, f.Serial)
	}
}

func (l *line) skipped(f *aof.Fact, w *waiter) {
	if w.op == nil {
		return
	}
	l.examined("G4", "nobody skipped", 1)
	if l.undisturbed(w.op.process) {
		l.violation("G4", "nobody skipped", l.key.Name, []string{w.value},
			"%s was skipped (entry %d) though nothing was done to its process %s", w.value, f.Serial, w.op.process.name)
	}
}

// set: a grant that did not come from the line must find nobody in it.
func (l *line) set(f *aof.Fact) {
	if !f.FromQueue && f.Over == "" {
		l.examined("G2", "newcomers", 1)
		if head := l.head(); head != nil && l.freed == byRelease {
			l.violation("G2", "newcomers", l.key.Name, []string{head.value, f.Value},
				"%s got the lock (entry %d) past %s, which stood in line", f.Value, f.Serial, head.value)
		}
	}
	l.freed = never
}

func (l *line) deleted(f *aof.Fact) {
	if strings.HasPrefix(f.Value, foreign) || l.SecondClass.Deletion || l.SecondClass.Eviction {
		l.freed = otherwise
		return
	}
	l.freed = byRelease
	l.examined("G3", "handed over", 1)
	if l.head() == nil {
		return
	}
	for _, w := range l.inLine {
		if w.inLine && w.op != nil && l.undisturbed(w.op.process) {
			l.violation("G3", "handed over", l.key.Name, []string{f.Value, w.value},
				"%s was released (entry %d) to nobody, though %s stood in line", f.Value, f.Serial, w.value)
			return
		}
	}
	l.freed = otherwise
}

func (l *line) queueEnd(f *aof.Fact) {
	for _, w := range l.inLine {
		if !w.inLine || w.op == nil {
			continue
		}
		l.examined("G4", "queue kept", 1)
		if l.undisturbed(w.op.process) && !l.SecondClass.any() {
			l.violation("G4", "queue kept", l.key.Name, []string{w.value},
				"the queue was removed (entry %d) though %s stood in it", f.Serial, w.value)
			break
		}
	}
	l.empty()
}

// waiterHeap is a heap.Interface, by first ZADD.
type waiterHeap []*waiter

func (h waiterHeap) Len() int           { return len(h) }
func (h waiterHeap) Less(i, j int) bool { return h[i].place < h[j].place }
func (h waiterHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *waiterHeap) Push(x any)        { *h = append(*h, x.(*waiter)) }
func (h *waiterHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
