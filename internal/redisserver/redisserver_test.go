package redisserver_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock/internal/redisserver"
)

func TestServerIsKilledStartedAgainAndFrozen(t *testing.T) {
	ctx := context.Background()
	s, err := redisserver.Start(redisserver.Options{
		Dir: t.TempDir(), Args: []string{"--appendonly", "yes", "--appendfsync", "always"},
	})
	require.NoError(t, err)
	defer s.Kill()
	client := redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1, ReadTimeout: 100 * time.Millisecond, ContextTimeoutEnabled: true})
	defer client.Close()
	require.NoError(t, client.Set(ctx, "key", "value", 0).Err())

	first := s.Pid()
	s.Kill()
	s.Kill() // may be done twice
	require.Error(t, client.Ping(ctx).Err())
	require.NoError(t, s.Run())
	require.NotEqual(t, first, s.Pid())
	require.Equal(t, "value", client.Get(ctx, "key").Val())

	s.Kill()
	s.Dir = t.TempDir()
	require.NoError(t, s.Run())
	require.Zero(t, client.Exists(ctx, "key").Val(), "files of another folder")

	require.NoError(t, s.Freeze())
	require.Error(t, client.Ping(ctx).Err())
	require.NoError(t, s.Thaw())
	require.NoError(t, client.Ping(ctx).Err())
}

func TestServerThatDoesNotStartSaysWhy(t *testing.T) {
	_, err := redisserver.Start(redisserver.Options{Dir: t.TempDir(), Args: []string{"--no-such-option", "yes"}})
	require.ErrorContains(t, err, "no-such-option")
	_, err = redisserver.Start(redisserver.Options{Dir: t.TempDir(), Args: []string{"--loadmodule", "/no/such/module"}})
	require.ErrorContains(t, err, "/no/such/module") // which is in the log
	t.Setenv("PATH", "")
	_, err = redisserver.Start(redisserver.Options{Dir: t.TempDir()})
	require.ErrorContains(t, err, "apt-get install -y redis-server")
}
