package aof

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Of servers that take each other's place, each has a part of the history: a replica
// writes the same commands as its master, from when it has caught up with that.

// MarkKey is a key that is set on the master again and again, each time to another
// value and for MarkTTL. Where two files have the same mark, they go on alike.
const (
	MarkKey = reserved + "mark"
	MarkTTL = time.Minute
)

// What Merge puts into a history.
const (
	Forked  = "FORKED"  // what follows, up to Rewound, has been lost
	Rewound = "REWOUND" // all is again as it was at the last Forked; with the time, Unix ms, by which the other was over
)

// A Fork is a history that was lost. It may have gone on while the one that was kept did:
// two servers took themselves for the master.
type Fork struct {
	Forked, Rewound int // steps
}

// A Lost is the whole history of a master that was replaced before the one in its place
// had received all.
type Lost struct {
	Entries []Entry
	Over    int64 // when it was no master any more, at the latest: Unix time, ms; 0: unknown
}

// ReadFollowed reads the history of a server that came to follow another one: each
// of the folders is a copy of the one that the next server followed from some time
// on, made after that time. Of the first, and of each, only what came after the data
// that it began with is read.
//
// The seconds are left out: a replica notes when a command came to it. The marks
// tell the time in their place.
func ReadFollowed(dirs ...string) (all []Entry, err error) {
	for _, dir := range dirs {
		p := new(parser)
		if err := readDir(p, dir, "i"); err != nil {
			return nil, err
		}
		if all == nil {
			all = p.entries
			continue
		}
		// A replica was in step when it was looked at, but perhaps not from its first command.
		first := slices.IndexFunc(p.entries, isMark)
		if first < 0 {
			return nil, fmt.Errorf("%s: no mark", dir)
		}
		at := slices.IndexFunc(all, func(e Entry) bool { return slices.Equal(e.Args, p.entries[first].Args) })
		if at < 0 {
			return nil, fmt.Errorf("%s: mark %v is not in what it followed", dir, p.entries[first].Args)
		}
		all = join(all[:at], p.entries[first:])
	}
	for i := range all {
		all[i].Second = 0
	}
	return all, nil
}

func isMark(e Entry) bool { return len(e.Args) > 1 && isMarkKey(e.Args[1]) }

// isMarkKey tells whether a key is for marks. In a cluster it carries a tag.
func isMarkKey(name string) bool { return name == MarkKey || strings.HasPrefix(name, MarkKey+":") }

// Merge puts what was lost into the history of what was not: all that a master had
// written until it died, or was none any more, and the replica that took its place had not
// received. Of these masters it wants the histories in the order in which they were
// replaced. It returns how many entries were lost.
func Merge(kept []Entry, dead ...Lost) (all []Entry, lost int) {
	from := 0
	for _, one := range dead {
		common := 0
		for common < min(len(kept), len(one.Entries)) && slices.Equal(kept[common].Args, one.Entries[common].Args) {
			common++
		}
		tail := one.Entries[common:]
		if len(tail) == 0 {
			continue
		}
		lost += len(tail)
		over := Entry{Args: []string{Rewound, strconv.FormatInt(one.Over, 10)}}
		all = join(all, kept[from:common], []Entry{{Args: []string{Forked}}}, tail, []Entry{over})
		from = common
	}
	return join(all, kept[from:]), lost
}

// join numbers the entries of all parts anew.
func join(parts ...[]Entry) (all []Entry) {
	step := 0
	for _, part := range parts {
		for i, e := range part {
			if i == 0 || e.Step != part[i-1].Step {
				step++
			}
			e.Serial, e.Step = len(all)+1, step
			all = append(all, e)
		}
	}
	return all
}

// past is what was, for Rewound.
type past struct {
	queues map[string]*queue
	held   map[string]*Hold
	last   map[string]int64 // the deadlines of what was held
	fence  int64
}

func (r *replayer) forked() {
	r.fork = &Fork{Forked: r.step}
	r.log.Forks = append(r.log.Forks, r.fork)
	r.times.last.forked = true
	r.past = past{queues: make(map[string]*queue), held: make(map[string]*Hold), last: make(map[string]int64), fence: r.fence}
	for lock, q := range r.queues {
		r.past.queues[lock] = q.clone()
	}
	for lock, hold := range r.held {
		r.past.held[lock], r.past.last[lock] = hold, hold.Last()
	}
}

func (r *replayer) rewound(args []string) {
	fork := r.fork
	fork.Rewound, r.fork = r.step, nil
	r.times.last.rewound = true
	if len(args) == 1 {
		r.times.last.over, _ = parseInt(args[0])
	}
	r.queues, r.fence = r.past.queues, r.past.fence
	for lock, key := range r.log.Keys {
		was, is := r.past.held[lock], r.held[lock]
		f := Fact{Kind: Rewind}
		switch {
		case was != is && is != nil:
			f.Value, f.Before = is.Value, is.Last()
			r.end(lock, Rewind)
		case was == is && is != nil && is.Last() != r.past.last[lock]:
			is.Deadlines = append(is.Deadlines, Deadline{r.step, r.past.last[lock]})
			is.Cut = fork
		}
		r.add(lock, f)
		if was != is && was != nil {
			was.Cut = fork
			again := &Hold{
				Key: lock, Value: was.Value, Step: r.step, Serial: r.entry.Serial, FromQueue: was.FromQueue, Again: true,
				Deadlines: []Deadline{{r.step, r.past.last[lock]}},
			}
			r.held[lock] = again
			key.Holds = append(key.Holds, again)
		}
		if q := r.queues[lock]; q != nil {
			for _, p := range q.inOrder() {
				r.add(lock, memberFact(Join, p.member, p.score))
			}
		}
	}
}
