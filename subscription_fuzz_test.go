package redislock

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// nowhere is a client that is not used.
var nowhere = redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})

// newStill returns a manager that sends nothing, and a lock of it that stands in
// line for the key.
func newStill(t *testing.T, key string) (*LockManager, *Lock) {
	m, err := NewLockManager(nowhere)
	require.NoError(t, err)
	s := m.shards[0]
	s.resumeAt = time.Now().Add(time.Hour)
	s.wakeup = true // kick will be called, it thinks
	ln := m.lineOf(key)
	ln.slot.at = s
	l := &Lock{
		manager: m, verb: "lock", key: key, line: ln, ctx: context.Background(), value: "value",
		ttl: time.Minute, seq: 7, outcome: newOutcome(), joined: true, trace: true, heapAt: -1,
	}
	ln.push(l)
	m.tickets[l.seq] = l
	t.Cleanup(func() {
		if ln.timer != nil {
			ln.timer.Stop()
		}
		if m.holds.timer != nil {
			m.holds.timer.Stop()
		}
	})
	return m, l
}

// What a subscription delivers has the line looked after if it says that its key
// was freed, and else changes nothing. No message panics.
func FuzzEvents(f *testing.F) {
	for _, key := range oddKeys {
		f.Add(key, "__keyspace@0__:"+key, "del", uint8(1))
		f.Add(key, "__keyspace@0__:"+key, "set", uint8(noiseLimit))
		f.Add(key, "__keyspace@0__:"+key+"x", "del", uint8(1))
		f.Add(key, "__keyevent@0__:del", key, uint8(1))
	}
	for _, name := range []string{"expired", "evicted", "rename_from", "rename_to", "move_from", "move_to", "DEL", "del ", "", "\x00", "expire"} {
		f.Add("key", "__keyspace@0__:key", name, uint8(20))
	}
	f.Add("key", "__keyspace@1__:key", "del", uint8(1))
	f.Add("key", "__keyspace@0__:", "del", uint8(1))
	f.Add("", "__keyspace@0__:", "del", uint8(1))
	f.Fuzz(func(t *testing.T, key, channel, name string, times uint8) {
		m, l := newStill(t, key)
		m.watch(l.line)
		for range times {
			m.shards[0].events.event(channel, name, freeing[name])
		}
		own := channel == "__keyspace@0__:"+key && times > 0
		frees := name == "expired" || name == "del" || name == "evicted" || name == "rename_from" || name == "move_from"
		require.Equal(t, own && frees, l.inFlight, "looked")
		require.Equal(t, own && frees && times > 1, l.line.lookAgain, "looks again")
		require.Equal(t, !own || frees || times < noiseLimit, l.line.watched, "watched")
		require.Equal(t, waiting, l.state)
	})
}

// Whatever comes over the grant channel, a lock is granted only by what names
// it, and anything else that can be understood is given back.
func FuzzGrantToWaiter(f *testing.F) {
	f.Add("key", "1795315007927871 1795315007 927870 7 3 keyvalue")
	f.Add("key", "1795315007927871 1795315007 927870 7 3 keyother")
	f.Add("key", "1795315007927871 1795315007 927870 8 3 keyvalue")
	f.Add("key", "1 9223372035 999999 7 3 keyvalue")
	f.Add("key", "1 0 0 7 3 keyvalue")
	f.Add("", "1 1 0 7 0 value")
	f.Add("key", "1 1 0 7 0 ")
	f.Add("key", "-1 1 0 7 3 keyvalue")
	f.Add("key", "1 1 0 7 3 key")
	f.Add("key", "")
	f.Fuzz(func(t *testing.T, key, message string) {
		m, l := newStill(t, key)
		m.shards[0].events.granted(message)
		g, err := decodeGrant(message)
		switch pending := &m.shards[0].pending; {
		case err != nil:
			require.Zero(t, pending.length)
			require.Equal(t, waiting, l.state)
		case g.seq == 7 && g.key == key && g.value == "value":
			// The clocks are not known yet, so Redis is asked.
			require.Equal(t, 1, pending.length)
			require.Equal(t, opAcquire, pending.first.kind)
			require.Same(t, l, pending.first.lock)
		case isChosen(g.seq): // others may hold the key by that value
			require.Zero(t, pending.length)
			require.Equal(t, waiting, l.state)
		default:
			require.Equal(t, 1, pending.length)
			require.Equal(t, opRelease, pending.first.kind)
			require.Equal(t, [2]string{g.key, g.value}, [2]string{pending.first.lock.key, pending.first.lock.value})
			require.Equal(t, waiting, l.state)
		}
	})
}
