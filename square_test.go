package redislock

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// However many there are, each costs the same: all this is done under the one mutex.
// Work that grew with the square of the number would take ten times as long and more.
// What counts is the processor's time: others may be busy on this machine.
func TestWorkDoesNotGrowWithItsSquare(t *testing.T) {
	const many, limit = 100_000, 10 * time.Second
	within := func(t *testing.T) func() {
		began, n := processorTime(t), 0
		return func() {
			if n++; n%100 > 0 {
				return
			}
			if took := processorTime(t) - began; took > limit {
				t.Fatalf("not done after %v", took)
			}
		}
	}
	// crowd has very many callers ask for a key that was found taken just now, before
	// anybody can wait for it in Redis.
	crowd := func(t *testing.T) (*LockManager, *line) {
		check := within(t)
		m, l := newStill(t, "key")
		ln := l.line
		m.mu.Lock()
		ln.remove(l)
		ln.contended = time.Now().Add(time.Hour)
		ln.timer = time.NewTimer(time.Hour) // which has nobody look
		m.mu.Unlock()
		for range many {
			m.Lock(context.Background(), "key", time.Hour)
			check()
		}
		require.Equal(t, many, ln.length)
		return m, ln
	}

	t.Run("callers who are held back", func(t *testing.T) { crowd(t) })

	t.Run("callers who fail one after another", func(t *testing.T) {
		m, ln := crowd(t)
		check := within(t)
		m.mu.Lock()
		defer m.mu.Unlock()
		for ln.first != nil {
			m.knock(ln)
			o := m.shards[0].pending.pop()
			o.cmd = newCommand()
			m.complete(o, m.shards[0], ErrInvalidArgument, time.Now())
			check()
		}
	})

	t.Run("releases in batches", func(t *testing.T) {
		m, l := newStill(t, "key")
		check := within(t)
		m.mu.Lock()
		defer m.mu.Unlock()
		s := m.shards[0]
		for range many {
			m.submit(&op{kind: opRelease, lock: l, simple: true})
		}
		for s.backlog() > 0 {
			require.LessOrEqual(t, len(s.takeBatch().ops), maxBatch)
			s.inFlight = nil
			check()
		}
	})

	t.Run("requests that are withdrawn", func(t *testing.T) {
		m, l := newStill(t, "key")
		m.mu.Lock()
		defer m.mu.Unlock()
		s := m.shards[0]
		ops := make([]*op, many)
		for i := range ops {
			ops[i] = &op{kind: opRelease, lock: l}
			m.submit(ops[i])
		}
		check := within(t)
		for _, o := range ops {
			require.True(t, s.withdraw(o))
			require.False(t, s.withdraw(o))
			check()
		}
		require.Zero(t, s.backlog())
	})
}

func processorTime(t *testing.T) time.Duration {
	var usage syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// Nor do very many callers who join a line go out at a time: a batch of them does, and
// the next when that was answered.
func TestVeryManyJoinBatchByBatch(t *testing.T) {
	m, l := newStill(t, "key")
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ln := m.shards[0], l.line
	ln.slot.ready = true
	for range 5 * maxBatch / 2 {
		x := &Lock{manager: m, key: "key", line: ln, ctx: context.Background(), ttl: time.Minute, heapAt: -1}
		m.seq++
		x.seq = m.seq
		ln.push(x)
		if ln.unsent == nil {
			ln.unsent = x
		}
	}
	m.pump(ln, time.Now())
	var seqs []uint64
	for _, n := range []int{maxBatch, maxBatch, maxBatch / 2} {
		require.Equal(t, n, s.backlog())
		for _, o := range s.takeBatch().ops {
			seqs = append(seqs, o.lock.seq)
			o.cmd = newCommand()
			o.cmd.SetVal([]any{int64(2), "1795315007", "927870"})
			ln.lookAt = time.Now()
			m.complete(o, s, nil, time.Now())
		}
	}
	require.Zero(t, s.backlog())
	require.IsIncreasing(t, seqs)
}

// Extensions do not wait behind what very many others ask for.
func TestExtensionsGoOutFirst(t *testing.T) {
	m, l := newStill(t, "key")
	m.mu.Lock()
	defer m.mu.Unlock()
	for range 10 * maxBatch {
		m.submit(&op{kind: opRelease, lock: l, simple: true})
	}
	extension := &op{kind: opExtend, lock: l, ttl: time.Minute, answer: make(chan error, 1)}
	m.submit(extension)
	require.Contains(t, m.shards[0].takeBatch().ops, extension)
}
