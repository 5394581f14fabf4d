package redislock

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

type opKind uint8

const (
	opClaim   opKind = iota // plain SET NX and a token: for a key thought to be free
	opAcquire               // acquire.lua
	opRelease               // release.lua, or free.lua
	opExtend                // extend.lua
	opVote                  // vote.lua
	opConfirm               // confirm.lua
	opRaise                 // raise.lua by itself
	opProbe                 // probe.lua
)

// An op is one request to Redis on behalf of a lock. Every kind may be run
// again after a lost reply. An op belongs to its sender from submit until
// complete.
type op struct {
	kind   opKind
	simple bool // opRelease: nobody is known to wait, free.lua may do
	join   bool // opAcquire: wait in the line
	look   bool // opAcquire: looks after the line, for all who wait here
	rejoin bool // opAcquire: part of a rejoin
	plain  bool // opRelease: was done by plain commands

	lock       *Lock
	list       *opList // it stands in: what its sender has not sent yet; nil: sent
	prev, next *op

	ttl    time.Duration // opExtend
	answer chan error    // opExtend by a caller: buffered, gets the outcome
	copies *copies       // shared with those that rescue has made; but of opExtends nil if there are none
	vote   *vote         // of a quorum: what this is one node's part of; nil for releases
	node   int           // of a quorum: index in manager.shards
	value  any           // of a quorum: the owner value, where it is not sure to be the lock's still

	cmd       command   // of a simple release: of several
	place     int       // its number among those, from 1; of a claim: among those that draw together
	draw      *draw     // opClaim: of the token
	sent      time.Time // when the last attempt began
	raise     *raise    // opClaim: what goes before it, if anything does
	floor     int64     // opClaim: the fence was above it as the claim drew
	attempts  int       // that failed without an answer that settles it
	since     time.Time // when the first of them did; of a release of a chosen value: when it was made
	failure   failure   // what the last one came to
	uncertain bool      // an attempt failed that may have reached Redis
	follow    bool      // it has to follow a redirection
	replicas  int       // that have confirmed it, or notAsked
}

// command is a redis.Cmd that the client sends once: attempts after a failure
// are the manager's, which has to know that there was one.
type command struct{ *redis.Cmd }

func (command) NoRetry() bool { return true }

func newCommand(args ...any) command {
	return command{redis.NewCmd(context.Background(), args...)}
}

// acquires tells the kinds for which a caller waits to become the holder.
func (o *op) acquires() bool { return o.kind == opClaim || o.kind == opAcquire }

// urgent tells what others wait for, or may.
func (o *op) urgent() bool { return o.kind != opClaim && !o.simple }

// err returns what went wrong with the op's commands, redis.Nil included.
func (o *op) err() error {
	if err := o.cmd.Err(); err != nil || o.kind != opClaim {
		return err
	}
	return o.draw.cmd.Err()
}

// token returns what a claim has drawn.
func (o *op) token() (int64, bool) {
	last, ok := asInt(o.draw.cmd.Val())
	return last - int64(o.draw.n-o.place), ok
}

// halfDone tells a claim that set the key and failed to draw a token.
func (o *op) halfDone() bool { return o.kind == opClaim && o.cmd.Err() == nil && o.err() != nil }

// appendArgs appends the command that carries out the op. The arguments are boxed
// once for each lock, line and manager: to do it each time would cost more than all
// the rest.
func (o *op) appendArgs(args []any, manager any, have *loaded) []any {
	l := o.lock
	switch o.kind {
	case opClaim:
		args = append(args, "set", l.line.lockArg, l.valueArg, "nx", "px", l.ttlArg)
	case opAcquire:
		mode, score := "try", any("")
		if o.join {
			mode = "join"
		}
		if l.score != 0 {
			score = l.score
		} else if o.uncertain || l.joined {
			score = "?"
		}
		args = acquireScript.appendCall(args, have)
		args = append(args, l.line.scriptKeys()...)
		args = append(args, l.valueArg, l.ttlArg, mode, manager, l.line.slot.grants, l.seq, score)
		if !l.mayOwn() {
			args = append(args, foreign)
		}
	case opRelease:
		member := any("")
		if l.joined {
			member = l.member()
		}
		args = releaseScript.appendCall(args, have)
		args = append(args, l.line.scriptKeys()...)
		value := l.valueArg
		if o.value != nil {
			value = o.value
		}
		args = append(args, value, manager, l.line.slot.grants, member)
		if o.spares(o.sent) {
			args = append(args, foreign)
		}
	case opExtend:
		args = extendScript.appendCall(args, have)
		args = append(args, 1, l.line.lockArg, l.valueArg, o.ttl.Milliseconds())
	case opRaise:
		args = append(raiseScript.appendCall(args, have), 1, l.line.slot.fence)
	case opProbe:
		sl, count := l.line.slot, "numsub"
		if l.manager.topology != nil {
			count = "shardnumsub"
		}
		args = append(probeScript.appendCall(args, have), 1, sl.probe, sl.channel, count)
	case opVote:
		waits, polls := any(""), any("")
		if !l.try {
			// Nobody is his own rival. While the key is held here, to say so would hide those
			// who are: only the last that was refused is known.
			if l.line.holder == nil {
				waits = manager
			}
			if l.manager.polls(l.line, time.Now()) {
				polls = 1
			}
		}
		args = voteScript.appendCall(args, have)
		args = append(args, 4, l.line.lockArg, l.line.slot.fence, rivalKeys+l.key, pollKeys+l.key,
			o.value, l.ttlArg, o.vote.token, l.manager.quorum.minUptime, waits, polls)
		if l.hasChosenValue() && !o.uncertain {
			args = append(args, foreign)
		}
	case opConfirm:
		args = confirmScript.appendCall(args, have)
		args = append(args, 2, l.line.lockArg, l.line.slot.fence, o.value, o.vote.token)
	}
	return args
}

// foreign tells scripts that an owner value which they find is another's.
const foreign = "foreign"

// appendFree appends the call of free.lua for several locks.
func appendFree(args []any, ops []*op, have *loaded) []any {
	args = append(freeScript.appendCall(args, have), 2*len(ops))
	for _, o := range ops {
		args = append(args, o.lock.line.lockArg)
	}
	for _, o := range ops {
		args = append(args, o.lock.line.queueArg())
	}
	for _, o := range ops {
		args = append(args, o.lock.valueArg)
	}
	return args
}
