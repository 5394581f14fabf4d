package redislock

import (
	"math"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// What goes out together, and how much of it at most.
const (
	// maxExtends is how many extensions go out together. All that a manager has to
	// renew at a time may be more than is answered before the batch counts as
	// stalled; and others have to wait for it.
	maxExtends = 500

	// maxVotes is how many requests go out together to a node of a quorum, which has
	// a fraction of the lease to answer.
	maxVotes = 100

	// maxFrees is how many locks are released by one call, which Redis does in some
	// 0.2 ms.
	maxFrees = 100

	// maxDraws is how many claims draw their tokens together. The fewer, the less can
	// come between a claim and its token: see G10 in docs/protocol.md.
	maxDraws = 32

	// fenceAge is how far the fence may fall behind the server's clock while tokens
	// are drawn by claims: see G10 in docs/protocol.md.
	fenceAge = 10 * time.Millisecond
)

// A batch is what is sent as one pipeline.
type batch struct {
	ops  []*op
	cmds []redis.Cmder
	args []any // of all commands, in one piece of memory

	began   time.Time
	raises  []*raise // one for each fence that claims of the batch need it for
	draws   []*draw
	follow  bool    // has an op that has to follow a redirection
	rescued bool    // its ops were sent again
	wait    command // WAIT for replicas, if they matter to what the batch writes
}

// A raise is a call of raise.lua, ahead of the claims that draw from the fence.
type raise struct {
	slot  *slot
	cmd   command
	floor int64 // the fence is above it as the claims draw
}

// A draw is the INCRBY that draws the tokens of several claims. It comes after them:
// each has the key by then, or will not use its token.
type draw struct {
	slot *slot
	n    int // tokens
	cmd  command
}

// takeBatch makes a batch of all that is pending, but for extensions that are too
// many. The caller holds m.mu.
func (s *shard) takeBatch() *batch {
	b := &batch{began: time.Now()}
	b.ops, s.pending = s.pending, nil
	if s.m.quorum != nil && !s.m.closed && len(b.ops) > maxVotes {
		b.ops, s.pending = b.ops[:maxVotes:maxVotes], b.ops[maxVotes:]
	}
	if len(b.ops) > maxExtends {
		b.ops, s.pending = divide(b.ops)
	}
	s.inFlight = append(s.inFlight, b)
	b.follow = slices.ContainsFunc(b.ops, func(o *op) bool { return o.follow })
	b.cmds = make([]redis.Cmder, 0, len(b.ops)+4)
	b.args = make([]any, 0, argsOf(b.ops))
	s.freeTogether(b)
	for _, o := range b.ops {
		o.sent = b.began
		if o.simple {
			continue // done by freeTogether
		}
		switch o.kind {
		case opClaim:
			s.raiseFence(b, o)
			b.drawFor(o)
		case opExtend:
			if o.answer == nil { // a renewal: not beyond the longest hold
				rest := o.lock.renewEnd.Sub(b.began).Truncate(time.Millisecond)
				o.ttl = max(time.Millisecond, min(o.lock.ttl, rest))
			}
		}
		o.cmd = b.add(o.appendArgs(b.args, s.m.idArg, s.scriptsAt(b)))
		if o.kind == opClaim && o.draw.n == maxDraws {
			b.addDraw(o.draw)
		}
	}
	for _, d := range b.draws {
		if d.cmd.Cmd == nil {
			b.addDraw(d)
		}
	}
	s.askReplicas(b)
	if !s.watching {
		s.watchIn(stallAfter)
	}
	return b
}

// argsOf returns how many arguments the ops have, about: with what goes before and
// after claims.
func argsOf(ops []*op) int {
	n := 8
	for _, o := range ops {
		switch {
		case o.simple:
			n += 3
		case o.kind == opClaim:
			n += 6
		default:
			n += 16
		}
	}
	return n
}

// add adds the command that was appended to the arguments.
func (b *batch) add(args []any) command {
	cmd := newCommand(args[len(b.args):len(args):len(args)]...)
	b.cmds, b.args = append(b.cmds, cmd), args
	return cmd
}

// drawFor has a token drawn for a claim.
func (b *batch) drawFor(o *op) {
	sl := o.lock.line.slot
	at := slices.IndexFunc(b.draws, func(d *draw) bool { return d.slot == sl && d.n < maxDraws })
	if at < 0 {
		at = len(b.draws)
		b.draws = append(b.draws, &draw{slot: sl})
	}
	o.draw = b.draws[at]
	o.draw.n++
	o.place = o.draw.n
}

func (b *batch) addDraw(d *draw) { d.cmd = b.add(append(b.args, "incrby", d.slot.fence, d.n)) }

// freeTogether has the simple releases of the batch done by as few calls as can be.
// They go first, and so never after a claim that counts on them.
func (s *shard) freeTogether(b *batch) {
	var calls [][]*op // of one slot each
	for _, o := range b.ops {
		if !o.simple {
			continue
		}
		at := slices.IndexFunc(calls, func(ops []*op) bool {
			return ops[0].lock.line.slot == o.lock.line.slot && len(ops) < maxFrees
		})
		if at < 0 {
			at = len(calls)
			calls = append(calls, nil)
		}
		calls[at] = append(calls[at], o)
		o.place = len(calls[at])
	}
	for _, ops := range calls {
		cmd := b.add(appendFree(b.args, ops, s.scriptsAt(b)))
		for _, o := range ops {
			o.cmd = cmd
		}
	}
}

// scriptsAt returns which scripts are known where the batch goes. Where it is
// redirected to none may be, and a raise that fails costs its claims dearly.
func (s *shard) scriptsAt(b *batch) *loaded {
	if b.follow {
		return new(loaded)
	}
	return &s.loaded
}

// raiseFence has the fence raised before a claim, unless it was of late.
func (s *shard) raiseFence(b *batch, o *op) {
	sl := o.lock.line.slot
	o.raise, o.floor = nil, sl.floor
	if b.began.Sub(sl.raised) <= fenceAge {
		return
	}
	for _, r := range b.raises {
		if r.slot == sl {
			o.raise = r
			return
		}
	}
	o.raise = &raise{
		slot: sl, floor: sl.floor,
		cmd: b.add(append(raiseScript.appendCall(b.args, s.scriptsAt(b)), 1, sl.fence)),
	}
	b.raises = append(b.raises, o.raise)
}

// divide leaves all extensions beyond maxExtends for later.
func divide(ops []*op) (now, later []*op) {
	extends := 0
	for _, o := range ops {
		if o.kind == opExtend {
			if extends++; extends > maxExtends {
				later = append(later, o)
				continue
			}
		}
		now = append(now, o)
	}
	return now, later
}

// fenceRaised takes in the answer of raise.lua.
func (s *shard) fenceRaised(b *batch, r *raise, now time.Time) {
	err := r.cmd.Err()
	var server time.Duration
	if err == nil {
		server, err = decodeTime(r.cmd.Val())
	}
	if err != nil {
		if isNoScript(err) {
			s.loaded = loaded{}
		}
		r.floor = math.MaxInt64 // the claims have drawn from nobody knows what
		return
	}
	s.observe(b.began, now, server)
	r.floor = max(r.floor, server.Microseconds())
	r.slot.floor = max(r.slot.floor, r.floor)
	if b.began.After(r.slot.raised) {
		r.slot.raised = b.began
	}
}
