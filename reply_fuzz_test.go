package redislock

import (
	"errors"
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// anyReply makes, from any bytes, what go-redis may make of any reply.
func anyReply(data *[]byte, depth int) any {
	take := func(n int) string {
		n = min(n, len(*data))
		text := string((*data)[:n])
		*data = (*data)[n:]
		return text
	}
	kind := take(1)
	if kind == "" {
		return nil
	}
	number := func() int64 {
		odd := []int64{0, 1, 2, 3, -1, -2, 5000, 999_999, 1_000_000, 1795315007, 1 << 53, math.MaxInt64, math.MinInt64, math.MaxInt64 / 1_000_000_000}
		if i := take(1); i != "" {
			return odd[int(i[0])%len(odd)]
		}
		return 7
	}
	switch c := kind[0]; c % 12 {
	case 0:
		return nil
	case 1:
		return number()
	case 2:
		return float64(number())
	case 3:
		return []float64{1.5, math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 1e300}[int(c)/12%6]
	case 4:
		return []string{"", "1", "-1", "927870", "1795315007", "9223372036854775807", "9223372036854775808", "1.5", "x", "+1", " 1"}[int(c)/12%11]
	case 5:
		return take(int(c) / 12)
	case 6:
		return c > 100
	case 7:
		return new(big.Int).Lsh(big.NewInt(1), uint(c))
	case 8:
		return errors.New("an error within an array")
	case 9:
		return map[any]any{"key": anyReply(data, depth+1)}
	}
	if depth > 3 {
		return []any{}
	}
	n := int(kind[0]) / 12
	list := make([]any, 0, n)
	for range n {
		list = append(list, anyReply(data, depth+1))
	}
	return list
}

// No reply panics, none hangs a caller, and none gives a lease beyond the
// longest there is.
func FuzzAnyReply(f *testing.F) {
	const list, text, odd = 12*6 + 10, 4, 1 // kinds of anyReply, and how many or which
	f.Add([]byte{})
	f.Add([]byte{list, odd, 1, text + 12*4, text + 12*3, odd, 10, odd, 6, odd, 1})          // held
	f.Add([]byte{list, odd, 1, text + 12*4, text + 12*3, text + 12*5, odd, 11, odd, 11})    // held, for ever
	f.Add([]byte{list, odd, 1, text + 12*6, text + 12*3, odd, 11, odd, 12, odd, 1})         // beyond all numbers
	f.Add([]byte{list, odd, 1, text + 12*4, text + 12*3, text + 12*5, odd, 10, odd, 0})     // for long
	f.Add([]byte{list, odd, 0, text + 12*4, text + 12*3, odd, 4, text + 12*8, text})        // taken, without end
	f.Add([]byte{list, odd, 0, text + 12*4, text + 12*3, odd, 6, text + 12*8, text + 12*2}) // a negative turn
	f.Add([]byte{12*9 + 10, odd, 0, text + 12*4, text + 12*3, odd, 6, text + 12*8, text, odd, 9, odd, 1, odd, 12})
	f.Add([]byte{12*3 + 10, odd, 2, text + 12*4, text + 12*3})                          // behind another
	f.Add([]byte{list, odd, 3, text + 12*4, text + 12*3, odd, 2, odd, 10, text + 12*8}) // released to our own
	f.Add([]byte{list, odd, 3, text + 12*4, text + 12*3, odd, 4, odd, 10, text + 12*8}) // to a negative one
	f.Add([]byte{12*1 + 10, odd, 2})
	for c := range 256 {
		f.Add([]byte{byte(c), byte(c), 1, 2, 3, 4, 5})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v := anyReply(&data, 0)
		if r, err := decodeAcquire(v); err == nil && !r.behind {
			at := 3
			if r.held {
				at = 4
			}
			ms, _ := asInt(v.([]any)[at])
			switch {
			case ms < 0:
				require.Negative(t, r.lease)
			case ms > maxTTL.Milliseconds():
				require.Equal(t, maxTTL, r.lease)
			default:
				require.Equal(t, ms, r.lease.Milliseconds())
			}
			require.GreaterOrEqual(t, r.server, time.Duration(0))
			require.LessOrEqual(t, r.turn, uint64(math.MaxInt64))
		}
		if r, err := decodeRelease(v); err == nil {
			require.LessOrEqual(t, r.seq, uint64(math.MaxInt64))
		}
		_, _ = decodeTime(v)

		reply := newCommand()
		reply.SetVal(v)
		ok := newCommand()
		ok.SetVal("OK")
		now := time.Now()
		for _, o := range []*op{
			{kind: opAcquire, cmd: reply},
			{kind: opAcquire, cmd: reply, join: true, look: true},
			{kind: opClaim, cmd: ok, draw: &draw{cmd: reply, n: 2}, place: 1},
			{kind: opRelease, cmd: reply},
			{kind: opRelease, cmd: reply, simple: true, place: 1},
			{kind: opExtend, cmd: reply, answer: make(chan error, 1), copies: &copies{n: 1}},
		} {
			checkAnyReply(t, o, now)
		}
	})
}

func checkAnyReply(t *testing.T, o *op, now time.Time) {
	m, l := newStill(t, "key")
	o.lock, o.sent = l, now
	m.mu.Lock()
	defer m.mu.Unlock()
	switch o.kind {
	case opRelease:
		m.hold(l, 5, now.Add(l.ttl), now)
		l.state, l.err, l.releasing = leaving, ErrReleased, true
		m.unlocking.add(m, l, now)
		m.complete(o, m.shards[0], nil, now)
		if m.shards[0].pending.length > 0 {
			require.False(t, o.simple)
			return // it goes on to release.lua
		}
		require.False(t, l.unlocking, "Unlock would hang")
		require.Equal(t, gone, l.state)
		return
	case opExtend:
		m.hold(l, 5, now.Add(time.Second), now)
		m.complete(o, m.shards[0], nil, now)
		select {
		case <-o.answer:
		default:
			t.Fatal("Extend would hang")
		}
	default:
		l.inFlight = true
		l.line.acquiring = 1
		m.complete(o, m.shards[0], nil, now)
		require.True(t, l.state == held || l.inFlight || len(l.outcome) == 1 ||
			!l.line.lookAt.IsZero() || l.line.unsent != nil, "the caller would hang")
	}
	require.False(t, l.validUntil.After(now.Add(maxTTL)), "a lease beyond the longest")
}
