package redislock

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestGrantMessage(t *testing.T) {
	g, err := decodeGrant("1795315007927871 1795315007 927870 7 3 a bowner value\x00")
	require.NoError(t, err)
	require.Equal(t, grant{
		token: 1795315007927871, server: 1795315007927870 * time.Microsecond, seq: 7, key: "a b", value: "owner value\x00",
	}, g)
}

func TestGrantMessageThatDoesNotFitIsAnError(t *testing.T) {
	for _, message := range []string{
		"", " ", "1", "1 2 3 4 5", "1 2 3 4 5 ", "1 2 3 4 5 abcd", "x 2 3 4 1 kv", "1 2 3 -4 1 kv", "1 2 3 4 -1 kv",
		"1 -2 3 4 1 kv", "1 2 1000000 4 1 kv", "1 99999999999999999 3 4 1 kv", "1.5 2 3 4 1 kv",
		"1 2 3 4 18446744073709551615 kv", "1  2 3 4 1 kv",
	} {
		_, err := decodeGrant(message)
		require.Error(t, err, "%q", message)
	}
}

func FuzzGrant(f *testing.F) {
	f.Add("1795315007927871 1795315007 927870 7 3 a bowner value\x00")
	f.Add("1 2 3 4 0 ")
	f.Fuzz(func(t *testing.T, message string) {
		g, err := decodeGrant(message)
		if err != nil {
			return
		}
		// What was understood, was understood rightly.
		again, err := decodeGrant(fmt.Sprintf("%d %d %d %d %d %s%s", g.token, g.server/time.Second,
			g.server%time.Second/time.Microsecond, g.seq, len(g.key), g.key, g.value))
		require.NoError(t, err)
		require.Equal(t, g, again)
	})
}

func FuzzGrantOfAnyKeyAndValue(f *testing.F) {
	f.Add("key", "value")
	f.Add(" 1 2 ", "\x00\xff")
	f.Fuzz(func(t *testing.T, key, value string) {
		g, err := decodeGrant(fmt.Sprintf("5 6 7 8 %d %s%s", len(key), key, value))
		require.NoError(t, err)
		require.Equal(t, key, g.key)
		require.Equal(t, value, g.value)
	})
}

func TestRepliesOfBothProtocols(t *testing.T) {
	for _, reply := range []any{
		[]any{int64(1), "1795315007", "927870", "1795315007927871", int64(5000), int64(1)},
		[]any{int64(1), "1795315007", "927870", float64(1795315007927871), int64(5000), int64(1)},
	} {
		r, err := decodeAcquire(reply)
		require.NoError(t, err)
		require.Equal(t, acquireReply{
			held: true, server: 1795315007927870 * time.Microsecond, token: 1795315007927871, lease: 5 * time.Second, alone: true,
		}, r)
	}
}

func TestReplyThatDoesNotFitIsAnError(t *testing.T) {
	for _, reply := range []any{
		nil, "OK", int64(1), []any{}, []any{int64(1)}, []any{int64(0), "1", "2", "x", "holder", ""},
		[]any{int64(1), "1", "2", "3"}, []any{int64(0), "1", "2", int64(5), int64(7), ""},
		[]any{int64(0), "1", "2", int64(5), "holder", "", int64(1)},
		[]any{int64(0), "1", "2", int64(5), "holder", "-1"},
		[]any{int64(1), "1", "2", 1.5, int64(5), int64(0)},
	} {
		_, err := decodeAcquire(reply)
		require.Error(t, err, "%v", reply)
	}
	for _, reply := range []any{nil, []any{}, []any{int64(3)}, []any{int64(3), "1", "2"}, []any{int64(3), "1", "2", "x", "2", "v"}} {
		_, err := decodeRelease(reply)
		require.Error(t, err, "%v", reply)
	}
}

// Who joins behind another of this manager is told no lease. He counts on the look
// that is set for that one, and asks where there is none any more.
func TestWhoIsBehindAnotherIsLookedAfter(t *testing.T) {
	for _, set := range []bool{true, false} {
		m, l := newStill(t, "key")
		m.mu.Lock()
		now := time.Now()
		o := &op{kind: opAcquire, lock: l, join: true, cmd: newCommand(), sent: now}
		o.cmd.SetVal([]any{int64(2), "1795315007", "927870"})
		l.line.unsent, l.joined, l.inFlight, l.line.acquiring = nil, false, true, 1
		if set {
			m.lookBy(l.line, now, time.Minute)
		}
		m.complete(o, m.shards[0], nil, now)
		require.True(t, l.joined)
		require.Equal(t, int64(1795315007927870), l.score)
		require.Equal(t, !set, l.inFlight)
		m.mu.Unlock()
	}
}

func FuzzReply(f *testing.F) {
	f.Add(int64(0), "1", "2", int64(5), "holder", "", int64(1), int64(0), int64(7), 9)
	f.Add(int64(1), "1", "2", int64(5), "holder", "", int64(1), int64(0), int64(7), 3)
	f.Fuzz(func(t *testing.T, a int64, b, c string, d int64, e, g string, h, i, j int64, n int) {
		values := []any{a, b, c, d, e, g, h, i, j}
		if n < 0 || n > len(values) {
			n = len(values)
		}
		// No panic, and no lease or time that overflows.
		if r, err := decodeAcquire(values[:n]); err == nil {
			require.LessOrEqual(t, r.lease, maxTTL)
			require.GreaterOrEqual(t, r.server, time.Duration(0))
		}
		_, _ = decodeRelease(values[:n])
	})
}
