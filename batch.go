package redislock

import (
	"context"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// What goes out together, and how much of it at most.
const (
	// maxBatch is how many requests go out together. As the manager's mutex is held
	// while a batch is put together, and while its answers are taken in, this bounds
	// how long everybody else has to wait for it, however much there is to send.
	maxBatch = 1000

	// maxExtends is how many extensions go out together, beside the others. All that a
	// manager has to renew at a time may be more than is answered before the batch
	// counts as stalled; and others have to wait for it.
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
	number uint64 // of the manager's batches, from 1

	ops  []*op
	cmds []redis.Cmder
	args []any // of all commands, in one piece of memory

	ctx     context.Context // ended by Close for those that wait for a connection
	began   time.Time
	written atomic.Int64 // how long after that, in ns; 0: not yet
	raises  []*raise     // one for each fence that claims of the batch need it for
	draws   []*draw
	follow  bool // has an op that has to follow a redirection
	rescued bool // its ops were sent again, as often as they are to be

	freed  map[string]bool // the keys that it releases, if it was full
	behind []*op           // acquires of those that were to be sent after it: see overtakes

	wait command // WAIT for replicas, if they matter to what the batch writes

	rescueAt time.Time // when its ops may be sent again once more; zero: when it is due
}

// answered tells whether Redis has answered, be it with errors.
func (b *batch) answered() bool {
	err := b.cmds[0].Err()
	return err == nil || isAnswer(err)
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

// takeBatch makes a batch of what is to be sent, or of as much of it as one may
// have. It returns nil if there is nothing, or nothing that may go now. The caller
// holds m.mu.
func (s *shard) takeBatch() *batch {
	b := &batch{ctx: s.m.ctx, began: time.Now(), ops: s.takeOps()}
	if len(b.ops) == 0 {
		return nil
	}
	if s.pending.length > 0 && s.m.quorum == nil {
		b.freed = make(map[string]bool)
		for _, o := range b.ops {
			if o.kind == opRelease {
				b.freed[o.lock.key] = true
			}
		}
	}
	s.inFlight = append(s.inFlight, b)
	s.m.batches++
	b.number = s.m.batches
	b.follow = slices.ContainsFunc(b.ops, func(o *op) bool { return o.follow })
	b.cmds = make([]redis.Cmder, 0, len(b.ops)+4)
	b.args = make([]any, 0, argsOf(b.ops))
	for _, o := range b.ops {
		o.sent = b.began
		if o.kind == opRelease && o.spares(b.began) {
			o.simple, o.lock.own = false, false
		}
	}
	s.freeTogether(b)
	for _, o := range b.ops {
		if o.simple {
			continue // done by freeTogether
		}
		switch o.kind {
		case opClaim:
			if !s.proven {
				o.kind = opAcquire
				break
			}
			s.raiseFence(b, o)
			b.drawFor(o)
		case opExtend:
			if o.answer == nil { // a renewal: not beyond the longest hold
				o.ttl = o.lock.ttl
				if end := o.lock.renewEnd; !end.IsZero() {
					rest := end.Sub(b.began).Truncate(time.Millisecond)
					o.ttl = max(time.Millisecond, min(o.ttl, rest))
				}
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

// takeOps takes the next ops out of what is to be sent: extensions first, as no
// lease should end behind what thousands of others ask for.
func (s *shard) takeOps() []*op {
	limit := maxBatch
	switch {
	case s.m.closed && s.failures > 0:
		limit = s.pending.length // Close does not wait for such a server again and again
	case s.m.quorum != nil && !s.m.closed:
		limit = maxVotes
	}
	ops := make([]*op, 0, min(s.extends.length, maxExtends)+min(s.pending.length, limit))
	for s.extends.length > 0 && len(ops) < maxExtends {
		ops = append(ops, s.extends.pop())
	}
	limit += len(ops)
	for s.pending.length > 0 && len(ops) < limit {
		o := s.pending.pop()
		if b := s.overtakes(o); b != nil {
			b.behind = append(b.behind, o)
		} else {
			ops = append(ops, o)
		}
	}
	s.urgent = s.urgent && s.backlog() > 0
	return ops
}

// overtakes returns the batch, if there is one, behind which an acquire has to wait:
// it is under way, was full, and has a release of the key, which was to be sent
// before. Whoever counted on that would find the key taken, if this were sent over
// another connection meanwhile. Nobody waits for a batch that has stalled.
func (s *sender) overtakes(o *op) *batch {
	if !o.acquires() {
		return nil
	}
	for _, b := range s.inFlight {
		if b.freed[o.lock.key] && !b.rescued && b.rescueAt.IsZero() {
			return b
		}
	}
	return nil
}

// submitBehind submits what has waited behind the batch.
func (b *batch) submitBehind(m *LockManager) {
	for _, o := range b.behind {
		m.submit(o)
	}
	b.behind = nil
}

// A share is where a batch has what it does for the keys of a slot: indices, or -1.
// It is the slot's, and counts for one batch.
type share struct {
	of                 uint64 // the batch's number
	frees, raise, draw int
}

// shareOf returns the batch's share for a slot.
func (b *batch) shareOf(sl *slot) *share {
	if sl.share.of != b.number {
		sl.share = share{b.number, -1, -1, -1}
	}
	return &sl.share
}

// drawFor has a token drawn for a claim.
func (b *batch) drawFor(o *op) {
	sl := o.lock.line.slot
	at := &b.shareOf(sl).draw
	if *at < 0 || b.draws[*at].n == maxDraws {
		*at = len(b.draws)
		b.draws = append(b.draws, &draw{slot: sl})
	}
	o.draw = b.draws[*at]
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
		at := &b.shareOf(o.lock.line.slot).frees
		if *at < 0 || len(calls[*at]) == maxFrees {
			*at = len(calls)
			calls = append(calls, nil)
		}
		calls[*at] = append(calls[*at], o)
		o.place = len(calls[*at])
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
	at := &b.shareOf(sl).raise
	if *at < 0 {
		*at = len(b.raises)
		b.raises = append(b.raises, &raise{
			slot: sl, floor: sl.floor,
			cmd: b.add(append(raiseScript.appendCall(b.args, s.scriptsAt(b)), 1, sl.fence)),
		})
	}
	o.raise = b.raises[*at]
}

// fenceRaised takes in the answer of raise.lua.
func (s *shard) fenceRaised(b *batch, r *raise, now time.Time) {
	err := r.cmd.Err()
	var server time.Duration
	if err == nil {
		server, err = decodeTime(r.cmd.Val())
	}
	if err != nil {
		if classify(err) == noScript {
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
