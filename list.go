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

// An opList holds ops in the order in which they are to be sent. An op is in one at
// most. Guarded by the manager's mutex.
type opList struct {
	first, last *op
	length      int
}

// push puts an op at the end.
func (q *opList) push(o *op) {
	o.list = q
	o.prev = q.last
	if q.last == nil {
		q.first = o
	} else {
		q.last.next = o
	}
	q.last = o
	q.length++
}

// pushFirst puts an op at the front.
func (q *opList) pushFirst(o *op) {
	o.list = q
	o.next = q.first
	if q.first == nil {
		q.last = o
	} else {
		q.first.prev = o
	}
	q.first = o
	q.length++
}

// remove takes an op out, wherever it stands.
func (q *opList) remove(o *op) {
	if o.prev == nil {
		q.first = o.next
	} else {
		o.prev.next = o.next
	}
	if o.next == nil {
		q.last = o.prev
	} else {
		o.next.prev = o.prev
	}
	o.prev, o.next, o.list = nil, nil, nil
	q.length--
}

// pop takes out the first op. There has to be one.
func (q *opList) pop() *op {
	o := q.first
	q.remove(o)
	return o
}
