package aof

import (
	"strconv"
	"strings"
)

// Replay tells what the entries did to each lock key. ttl returns the TTL in ms
// that the owner of a value asked for; it dates the grants by their deadlines.
// ttl may be nil.
func Replay(entries []Entry, ttl func(value string) (int64, bool)) *Log {
	r := &replayer{
		log:    &Log{Entries: entries, Keys: make(map[string]*Key)},
		queues: make(map[string]*queue),
		held:   make(map[string]*Hold),
		ttl:    ttl,
	}
	for _, e := range entries {
		if e.Step != r.step {
			r.step = e.Step
			clear(r.popped)
		}
		r.entry = e
		r.times.entry(e)
		r.apply(e)
	}
	r.log.spans = r.times.settle()
	return r.log
}

type replayer struct {
	log    *Log
	queues map[string]*queue // by lock key
	held   map[string]*Hold  // by lock key: what it holds now
	fence  int64
	past   past
	fork   *Fork // the lost history that is being replayed, or nil
	ttl    func(string) (int64, bool)
	times  times

	entry  Entry
	step   int
	popped map[[2]string]int // lock key and value: index of its Pop, of this step
}

func (r *replayer) apply(e Entry) {
	args := e.Args[1:]
	switch e.Args[0] {
	case "FLUSHALL", "FLUSHDB":
		r.everythingGone(Flush)
		return
	case Restarted:
		r.everythingGone(Restart)
		return
	case Forked:
		r.forked()
		return
	case Rewound:
		r.rewound(args)
		return
	case "PUBLISH", "SCRIPT", "FUNCTION":
		return
	case "DEL", "UNLINK":
		kind := Delete
		if e.Args[0] == "UNLINK" {
			kind = Unlink
		}
		for _, name := range args {
			r.remove(name, kind)
		}
		return
	}
	if len(args) == 0 {
		return
	}
	name, args := args[0], args[1:]
	lock, isQueue := lockOfQueue(name)
	switch {
	case isMarkKey(name):
		r.onMark(args)
	case isFence(name):
		r.onFence(e.Args[0], args)
	case isQueue:
		r.onQueue(lock, e.Args[0], args)
	case strings.HasPrefix(name, reserved): // what else the library keeps beside a queue
	default:
		r.onLock(name, e.Args[0], args)
	}
}

func (r *replayer) key(name string) *Key {
	key := r.log.Keys[name]
	if key == nil {
		key = &Key{Name: name}
		r.log.Keys[name] = key
	}
	return key
}

// add appends a fact about a lock key and returns its index.
func (r *replayer) add(lock string, f Fact) int {
	key := r.key(lock)
	f.Serial, f.Step = r.entry.Serial, r.entry.Step
	if q := r.queues[lock]; q != nil {
		f.Waiting = len(q.scores)
	}
	key.Facts = append(key.Facts, f)
	return len(key.Facts) - 1
}

func (r *replayer) onLock(lock, command string, args []string) {
	switch {
	case command == "SET" && len(args) >= 1:
		r.set(lock, args)
	case command == "PEXPIREAT" && len(args) >= 1 && r.held[lock] != nil:
		at, err := parseInt(args[0])
		if err != nil {
			r.strange(lock)
			return
		}
		hold := r.held[lock]
		r.add(lock, Fact{Kind: Prolong, Value: hold.Value, Deadline: at, Before: hold.Last()})
		hold.Deadlines = append(hold.Deadlines, Deadline{r.step, at})
	case command == "PERSIST" && r.held[lock] != nil:
		hold := r.held[lock]
		r.add(lock, Fact{Kind: Persist, Value: hold.Value, Before: hold.Last()})
		hold.Deadlines = append(hold.Deadlines, Deadline{Step: r.step})
	default:
		r.strange(lock)
	}
}

func (r *replayer) set(lock string, args []string) {
	f := Fact{Kind: Set, Value: args[0]}
	for i := 1; i < len(args); i++ {
		if strings.EqualFold(args[i], "PXAT") && i+1 < len(args) {
			f.Deadline, _ = parseInt(args[i+1])
		}
	}
	ttl := int64(0)
	if at, ok := r.popped[[2]string{lock, f.Value}]; ok {
		pop := &r.log.Keys[lock].Facts[at]
		pop.Granted, f.FromQueue, ttl = true, true, pop.TTL
	} else if r.ttl != nil {
		ttl, _ = r.ttl(f.Value)
	}
	if f.Deadline != 0 && ttl != 0 {
		r.times.exactly(f.Deadline - ttl)
	}
	if before := r.held[lock]; before != nil {
		f.Over = before.Value
		r.end(lock, Replace)
		before.Next = f.Value
	}
	r.add(lock, f)
	hold := &Hold{
		Key: lock, Value: f.Value, Step: r.step, Serial: r.entry.Serial, FromQueue: f.FromQueue,
		Deadlines: []Deadline{{r.step, f.Deadline}}, Lost: r.fork,
	}
	r.held[lock] = hold
	r.log.Keys[lock].Holds = append(r.log.Keys[lock].Holds, hold)
}

func (r *replayer) onQueue(lock, command string, args []string) {
	q := r.queues[lock]
	if q == nil {
		q = newQueue()
		r.queues[lock] = q
	}
	switch command {
	case "ZADD":
		pairs := args
		for len(pairs) > 0 && !isNumber(pairs[0]) { // a flag, such as NX
			pairs = pairs[1:]
		}
		for ; len(pairs) >= 2; pairs = pairs[2:] {
			score, _ := strconv.ParseFloat(pairs[0], 64)
			q.add(pairs[1], score)
			f := memberFact(Join, pairs[1], score)
			if !r.putBack(lock, f) {
				r.join(lock, f)
			}
		}
	case "ZREM":
		for _, text := range args {
			score := q.scores[text]
			if q.remove(text) {
				r.add(lock, memberFact(Leave, text, score))
			}
		}
	case "ZPOPMIN":
		n := int64(1)
		if len(args) == 1 {
			n, _ = parseInt(args[0])
		}
		for ; n > 0; n-- {
			p, ok := q.popMin()
			if !ok {
				r.strange(lock)
				return
			}
			f := memberFact(Pop, p.member, p.score)
			if r.popped == nil {
				r.popped = make(map[[2]string]int)
			}
			r.popped[[2]string{lock, f.Value}] = r.add(lock, f)
		}
	case "PEXPIREAT": // of the line's own upkeep
	default:
		r.strange(lock)
	}
}

// putBack takes back that a member was popped, if a script adds it at once as it was: it
// was found to be none that can be told.
func (r *replayer) putBack(lock string, f Fact) bool {
	at, ok := r.popped[[2]string{lock, f.Value}]
	key := r.key(lock)
	if !ok || at != len(key.Facts)-1 {
		return false
	}
	pop := key.Facts[at]
	if pop.Manager != f.Manager || pop.Seq != f.Seq || pop.Score != f.Score {
		return false
	}
	key.Facts = key.Facts[:at]
	delete(r.popped, [2]string{lock, f.Value})
	return true
}

// join adds a Join. A script that finds that a newcomer has not the last place gives
// it that: it has joined but once.
func (r *replayer) join(lock string, f Fact) {
	facts := r.key(lock).Facts
	if len(facts) > 0 {
		last := &facts[len(facts)-1]
		if last.Kind == Join && last.Step == r.step && last.Manager == f.Manager && last.Seq == f.Seq && last.Value == f.Value {
			last.Score = f.Score
			return
		}
	}
	r.add(lock, f)
}

func memberFact(kind Kind, text string, score float64) Fact {
	m, _ := parseMember(text)
	return Fact{Kind: kind, Value: m.value, Manager: m.manager, Seq: m.seq, TTL: m.ttl, Score: score}
}

// onMark takes in a mark, which tells the time: SET key value PXAT ms.
func (r *replayer) onMark(args []string) {
	if len(args) == 3 {
		if at, err := parseInt(args[2]); err == nil {
			r.times.exactly(at - MarkTTL.Milliseconds())
		}
	}
}

func (r *replayer) onFence(command string, args []string) {
	switch {
	case command == "INCR" && len(args) == 0: // it may begin the fence
		r.fence++
	case command == "INCRBY" && len(args) == 1: // by claims: a token for each
		n, _ := parseInt(args[0])
		for ; n > 1; n-- {
			r.fence++
			r.log.Draws = append(r.log.Draws, Draw{r.entry.Serial, r.step, r.fence})
		}
		r.fence++
	case command == "SET" && len(args) >= 1: // a script, or somebody who meddles
		n, err := parseInt(args[0])
		if err != nil {
			r.fence = 0
			return
		}
		// A script that finds what it has drawn by INCR too low draws the server's
		// clock in its place.
		last := len(r.log.Draws) - 1
		instead := last >= 0 && r.log.Draws[last] == Draw{r.entry.Serial - 1, r.step, r.fence}
		if instead {
			r.log.Draws = r.log.Draws[:last]
		}
		if instead || n > r.fence+1 { // not the one after the last
			r.times.raised(n)
		}
		r.fence = n
	default:
		return
	}
	r.log.Draws = append(r.log.Draws, Draw{r.entry.Serial, r.step, r.fence})
}

func (r *replayer) remove(name string, kind Kind) {
	if isFence(name) {
		r.fence = 0
		return
	}
	if lock, ok := lockOfQueue(name); ok {
		delete(r.queues, lock)
		r.add(lock, Fact{Kind: QueueEnd})
		return
	}
	if hold := r.held[name]; hold != nil {
		r.end(name, kind)
		r.add(name, Fact{Kind: kind, Value: hold.Value, Before: hold.Last()})
	}
}

// end ends what a lock key holds now.
func (r *replayer) end(lock string, kind Kind) {
	hold := r.held[lock]
	hold.End, hold.EndStep, hold.EndSerial = kind, r.step, r.entry.Serial
	delete(r.held, lock)
}

func (r *replayer) everythingGone(kind Kind) {
	r.fence = 0
	clear(r.queues)
	for name := range r.log.Keys {
		value := ""
		if hold := r.held[name]; hold != nil {
			value = hold.Value
			r.end(name, kind)
		}
		r.add(name, Fact{Kind: kind, Value: value})
	}
}

func (r *replayer) strange(lock string) {
	r.add(lock, Fact{Kind: Strange, Text: strings.Join(r.entry.Args, " ")})
}

func isNumber(text string) bool {
	_, err := strconv.ParseFloat(text, 64)
	return err == nil
}

func parseInt(text string) (int64, error) { return strconv.ParseInt(text, 10, 64) }
