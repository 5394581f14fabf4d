package redislock

// A list holds locks in the order in which they came. A lock is in one list at
// most. Guarded by the manager's mutex.
type list struct {
	first, last *Lock
	length      int
}

// push puts a lock at the end.
func (q *list) push(l *Lock) {
	l.list = q
	l.prev = q.last
	if q.last == nil {
		q.first = l
	} else {
		q.last.next = l
	}
	q.last = l
	q.length++
}

// remove takes a lock out, wherever it stands.
func (q *list) remove(l *Lock) {
	if l.list != q {
		return
	}
	if l.prev == nil {
		q.first = l.next
	} else {
		l.prev.next = l.next
	}
	if l.next == nil {
		q.last = l.prev
	} else {
		l.next.prev = l.prev
	}
	l.prev, l.next, l.list = nil, nil, nil
	q.length--
}
