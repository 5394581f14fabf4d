package redislock_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// forbidding are rules of users who may not do what locks need, beside "+@all".
var forbidding = map[string][]string{
	"scripts":   {"~*", "&*", "+@all", "-eval", "-evalsha"},
	"side keys": {"~app:*", "&*", "+@all"},
}

// Who may not run scripts, or not touch the library's own keys, is told so each time,
// and nothing is left in Redis.
func TestWhatIsForbiddenLeavesNothing(t *testing.T) {
	for name, rules := range forbidding {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			admin := server.Client(nil)
			m := newManager(t, aclClient(t, server, rules), redislock.WithPrefix("app:"))
			for range 2 {
				_, err := m.TryLock(ctx, "key", time.Hour)
				require.ErrorContains(t, err, "NOPERM")
				require.NotErrorIs(t, err, redislock.ErrNotAcquired)
				require.ErrorContains(t, soon(t, m.Lock(ctx, "key", time.Hour)).Err, "NOPERM")
			}
			require.Empty(t, admin.Keys(ctx, "*").Val())
		})
	}
}

// What is forbidden later, while locks are held, is undone by plain commands.
func TestWhatIsForbiddenLaterIsUndone(t *testing.T) {
	for name, rules := range forbidding {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			admin := server.Client(nil)
			m := newManager(t, aclClient(t, server, []string{"~*", "&*", "+@all"}), redislock.WithPrefix("app:"))
			require.NoError(t, acquire(t, m, "warm", time.Hour).Unlock())
			held, taken := acquire(t, m, "held", time.Hour), acquire(t, m, "taken", time.Hour)
			require.NoError(t, admin.Set(ctx, "app:taken", "another's", time.Hour).Err())

			args := []any{"acl", "setuser", "locker", "resetkeys"}
			for _, rule := range rules {
				args = append(args, rule)
			}
			require.NoError(t, admin.Do(ctx, args...).Err())
			for _, key := range []string{"key", "key", "another"} {
				l, err := m.TryLock(ctx, key, time.Hour)
				if err == nil { // plain commands were enough, as the fence was up to date
					require.NoError(t, l.Unlock())
					continue
				}
				require.ErrorContains(t, err, "NOPERM")
			}
			require.NoError(t, held.Unlock())
			require.ErrorIs(t, taken.Unlock(), redislock.ErrLost)
			eventually(t, "all is undone", func() bool {
				return admin.Exists(ctx, "app:held", "app:key", "app:another").Val() == 0
			})
			require.Equal(t, "another's", admin.Get(ctx, "app:taken").Val())
			if ttl, err := admin.TTL(ctx, redislock.FenceKey).Result(); err != redis.Nil {
				require.Positive(t, ttl)
			}
			require.NoError(t, admin.Del(ctx, "app:taken").Err())
		})
	}
}

// What is undone by plain commands is one's own: not the key of another who goes by the
// same value.
func TestWhatIsForbiddenLaterSparesAnEqualValue(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client(nil)
	var log logBuffer
	m := newManager(t, aclClient(t, server, []string{"~*", "&*", "+@all"}), redislock.WithLogger(log.logger()))
	holder := acquire(t, newManager(t, admin), "key", time.Hour, worker)
	cancellable, cancel := context.WithCancel(ctx)
	waiter := m.Lock(cancellable, "key", time.Hour, worker)
	awaitWaiters(t, admin, "key", 1)
	require.NoError(t, admin.Do(ctx, "acl", "setuser", "locker", "-eval", "-evalsha").Err())
	cancel()
	require.ErrorIs(t, soon(t, waiter).Err, context.Canceled)
	eventually(t, "its release has been refused", func() bool { return strings.Contains(log.String(), "release failed") })
	require.NoError(t, holder.Extend(ctx, time.Hour), "its key was removed")
	require.NoError(t, holder.Unlock())
}

// Where EVAL is known and EVALSHA is not, the first call of each script is carried out, and
// no other: locks are released all the same, and no error shows an owner value, although
// Redis repeats the request.
func TestCommandThatIsNotThere(t *testing.T) {
	server := redistest.Start(t, "--rename-command", "EVALSHA", "")
	client := server.Client(nil)
	var log logBuffer
	m := newManager(t, client, redislock.WithLogger(log.logger()))
	for i := range 3 {
		l, err := m.TryLock(ctx, "k", time.Hour)
		if err != nil {
			require.ErrorContains(t, err, "unknown command")
			require.NotErrorIs(t, err, redislock.ErrNotAcquired)
			continue
		}
		for range 2 {
			if err := l.Extend(ctx, time.Hour); err != nil {
				require.ErrorContains(t, err, "unknown command")
				require.NotContains(t, err.Error(), l.Value())
			}
		}
		require.NoError(t, l.Unlock(), i)
		require.NotContains(t, log.String(), l.Value())
	}
	require.Contains(t, log.String(), "unknown command")
	require.Zero(t, client.Exists(ctx, "k").Val())
}
