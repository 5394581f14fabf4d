package aof

import (
	"container/heap"
	"maps"
	"slices"
)

// queue is a sorted set, as far as the library uses one. What was removed or got
// another score is only marked, and dropped when it comes up.
type queue struct {
	scores map[string]float64
	heap   placeHeap
}

type place struct {
	score  float64
	member string
}

func newQueue() *queue { return &queue{scores: make(map[string]float64)} }

func (q *queue) add(member string, score float64) {
	q.scores[member] = score
	heap.Push(&q.heap, place{score, member})
}

func (q *queue) remove(member string) bool {
	_, ok := q.scores[member]
	delete(q.scores, member)
	return ok
}

// popMin does what ZPOPMIN does: the lowest score, and among equals the member
// that comes first as a string of bytes.
func (q *queue) popMin() (p place, ok bool) {
	for len(q.heap) > 0 {
		p = heap.Pop(&q.heap).(place)
		if score, there := q.scores[p.member]; there && score == p.score {
			delete(q.scores, p.member)
			return p, true
		}
	}
	return place{}, false
}

func (q *queue) clone() *queue { return &queue{maps.Clone(q.scores), slices.Clone(q.heap)} }

// inOrder returns all that are in the queue.
func (q *queue) inOrder() (all []place) {
	for copied := q.clone(); ; {
		p, ok := copied.popMin()
		if !ok {
			return all
		}
		all = append(all, p)
	}
}

// placeHeap is a heap.Interface.
type placeHeap []place

func (h placeHeap) Len() int { return len(h) }
func (h placeHeap) Less(i, j int) bool {
	if h[i].score != h[j].score {
		return h[i].score < h[j].score
	}
	return h[i].member < h[j].member
}
func (h placeHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *placeHeap) Push(x any)   { *h = append(*h, x.(place)) }
func (h *placeHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
