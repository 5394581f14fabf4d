package redislock

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// While a majority is to confirm the token, a vote that comes late and is above it
// is none: if a key was lost meanwhile, another may have had the lock with a token
// from in between (LATEHIGHER in docs/model.md).
func TestLateVoteAboveTheTokenDoesNotConfirmIt(t *testing.T) {
	for late, want := range map[int64]state{6: waiting, 5: held, 4: waiting} {
		m, err := NewQuorumManager([]redis.UniversalClient{
			redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}),
			redis.NewClient(&redis.Options{Addr: "127.0.0.1:2"}),
			redis.NewClient(&redis.Options{Addr: "127.0.0.1:3"}),
		})
		require.NoError(t, err)
		for _, s := range m.shards {
			s.resumeAt, s.wakeup = time.Now().Add(time.Hour), true // sends nothing
		}
		l := m.Lock(context.Background(), "key", time.Minute)
		m.mu.Lock()
		answer := func(node int, reply any) {
			s := m.shards[node]
			require.Len(t, s.pending, 1)
			o := s.pending[0]
			s.pending = nil
			o.cmd = newCommand()
			o.cmd.SetVal(reply)
			o.sent = time.Now()
			m.complete(o, s, nil, time.Now())
		}
		yes := func(token int64) any { return []any{int64(1), "1795315007", "927870", token, ""} }
		answer(0, yes(5))
		answer(1, yes(4)) // and has to confirm 5
		answer(2, yes(late))
		require.Equal(t, want, l.state, late)
		if want == waiting {
			answer(1, int64(1)) // it does
		}
		require.Equal(t, held, l.state, late)
		require.EqualValues(t, 5, l.token)
		for _, s := range m.shards {
			s.pending = nil
		}
		l.finish()
		m.mu.Unlock()
	}
}
