package redislock

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// A stillQuorum is a manager of three nodes that sends nothing, and a lock that
// competes. Its mutex is held.
type stillQuorum struct {
	*LockManager
	t    *testing.T
	lock *Lock
}

func newStillQuorum(t *testing.T) *stillQuorum {
	m, err := NewQuorumManager([]redis.UniversalClient{
		redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}),
		redis.NewClient(&redis.Options{Addr: "127.0.0.1:2"}),
		redis.NewClient(&redis.Options{Addr: "127.0.0.1:3"}),
	}, WithKeyspaceEvents(KeyspaceOff))
	require.NoError(t, err)
	for _, s := range m.shards {
		s.resumeAt, s.wakeup = time.Now().Add(time.Hour), true
	}
	q := &stillQuorum{m, t, m.Lock(context.Background(), "key", time.Minute)}
	m.mu.Lock()
	t.Cleanup(func() {
		for _, s := range m.shards {
			s.pending = opList{}
		}
		q.lock.finish()
		m.closed = true // for timers that are still to come
		m.mu.Unlock()
	})
	return q
}

// next takes out what is to be sent to a node.
func (q *stillQuorum) next(node int) *op {
	q.t.Helper()
	s := q.shards[node]
	require.Equal(q.t, 1, s.pending.length)
	o := s.pending.pop()
	o.sent = time.Now()
	return o
}

func (q *stillQuorum) answer(node int, o *op, reply any) {
	o.cmd = newCommand()
	o.cmd.SetVal(reply)
	q.complete(o, q.shards[node], nil, time.Now())
}

func votes(token int64) any { return []any{int64(1), "1795315007", "927870", token, "", int64(0)} }

var refuses any = []any{int64(0), "1795315007", "927870", int64(60000), "another", int64(0)}

// While a majority is to confirm the token, a vote that comes late and is above it
// is none: if a key was lost meanwhile, another may have had the lock with a token
// from in between (LATEHIGHER in docs/model.md).
func TestLateVoteAboveTheTokenDoesNotConfirmIt(t *testing.T) {
	for late, want := range map[int64]state{6: waiting, 5: held, 4: waiting} {
		t.Run("", func(t *testing.T) {
			q := newStillQuorum(t)
			q.answer(0, q.next(0), votes(5))
			q.answer(1, q.next(1), votes(4)) // and has to confirm 5
			q.answer(2, q.next(2), votes(late))
			require.Equal(t, want, q.lock.state, late)
			if want == waiting {
				q.answer(1, q.next(1), int64(1)) // it does
			}
			require.Equal(t, held, q.lock.state, late)
			require.EqualValues(t, 5, q.lock.token)
		})
	}
}

// A vote that waits for a release of the same value is not sent if that release may
// arrive twice: it would take the vote away (SAMEVALUE in docs/model.md).
func TestVoteDoesNotFollowAReleaseThatMayArriveAgain(t *testing.T) {
	for _, uncertain := range []bool{false, true} {
		t.Run("", func(t *testing.T) {
			q := newStillQuorum(t)
			q.answer(0, q.next(0), votes(5))
			q.answer(1, q.next(1), refuses)
			q.answer(2, q.next(2), refuses)
			release := q.next(0)
			require.Equal(t, opRelease, release.kind)
			q.campaign(q.lock)
			require.Zero(t, q.shards[0].pending.length)

			release.uncertain = uncertain
			q.answer(0, release, int64(1))
			if uncertain {
				require.Zero(t, q.shards[0].pending.length)
				require.ErrorIs(t, q.lock.ballot.vote.answers[0].err, errGhost)
			} else {
				require.Equal(t, opVote, q.next(0).kind)
			}
		})
	}
}

// A node that was restarted and does not vote may still have the value from
// before, which has to be released there.
func TestNodeThatMayNotVoteIsCleanedUp(t *testing.T) {
	for _, before := range []bool{false, true} {
		t.Run("", func(t *testing.T) {
			q := newStillQuorum(t)
			o := q.next(0)
			o.uncertain = before
			q.answer(0, o, []any{int64(2), "1795315007", "927870", int64(1)})
			q.answer(1, q.next(1), refuses)
			q.answer(2, q.next(2), refuses)
			if before {
				require.Equal(t, opRelease, q.next(0).kind)
			} else {
				require.Zero(t, q.shards[0].pending.length)
			}
		})
	}
}

// After a release a manager stands back for others that wait, also when the events of
// its own release come.
func TestQuorumStandsBackAfterItsOwnRelease(t *testing.T) {
	q := newStillQuorum(t)
	for node := range 3 {
		q.answer(node, q.next(node), votes(5))
	}
	require.Equal(t, held, q.lock.state)
	q.mu.Unlock()
	next := q.Lock(context.Background(), "key", time.Minute)
	q.mu.Lock()
	ln := next.line
	c := q.contestOf(ln)
	c.rivalAt, c.window = time.Now(), time.Hour
	for _, s := range q.shards {
		s.events.watched[s.keyspaceChannel(ln)] = ln
	}
	q.end(q.lock)
	for _, s := range q.shards {
		s.events.freed(s.keyspaceChannel(ln))
		require.Equal(t, c.yield, ln.lookAt)
	}
	require.NotZero(t, ln.lookAt)
}

// A caller's own value stays through all votes, so a node from which a release of it may
// still arrive has no vote. Where that leaves no majority, the call ends and says so.
func TestQuorumCallEndsWhereNoMajorityMayVote(t *testing.T) {
	for ghosts, ends := range []bool{false, false, true, true} {
		t.Run("", func(t *testing.T) {
			q := newStillQuorum(t)
			l := q.lock
			l.ballot.known = true // as the key was found taken before
			for node := range 3 {
				o := q.next(node)
				o.cmd = newCommand()
				l.ballot.stands[node].ghost = node < ghosts
				q.complete(o, q.shards[node], errNoAnswer, time.Now())
			}
			require.Equal(t, ends, l.state != waiting, ghosts)
			if ends {
				require.ErrorIs(t, l.err, ErrNotAcquired)
			}
		})
	}
}

// A release of a caller's own value that is sent late leaves a node's key alone: it may be
// another's by then, who goes by the same value.
func TestLateReleaseSparesAnEqualValueAtANode(t *testing.T) {
	for _, rest := range []time.Duration{time.Minute, -time.Millisecond} {
		t.Run("", func(t *testing.T) {
			q := newStillQuorum(t)
			l := q.lock
			l.options.value = "value"
			for node := range 3 {
				q.answer(node, q.next(node), votes(5))
			}
			require.Equal(t, held, l.state)
			q.end(l)
			l.validUntil = time.Now().Add(rest)
			args := q.shards[0].takeBatch().ops[0].cmd.Args()
			require.Equal(t, rest < 0, args[len(args)-1] == foreign)
		})
	}
}
