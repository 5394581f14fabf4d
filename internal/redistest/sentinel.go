package redistest

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock/internal/redisserver"
)

// Sentinels are a master, replicas and sentinels of the test's own.
type Sentinels struct {
	*redisserver.Sentinels

	t testing.TB
}

// StartSentinels starts a master without persistence, that many replicas, and that
// many sentinels.
func StartSentinels(t testing.TB, replicas, sentinels int) *Sentinels {
	t.Helper()
	watch(t)
	s, err := redisserver.StartSentinels(redisserver.Options{Dir: t.TempDir()}, replicas, sentinels)
	must(t, err)
	t.Cleanup(s.Kill)
	return &Sentinels{Sentinels: s, t: t}
}

// Client returns a client of whichever server is the master, which is closed with the
// test. change, if not nil, may change its options.
func (s *Sentinels) Client(change func(*redis.FailoverOptions)) *redis.Client {
	options := &redis.FailoverOptions{MasterName: s.Name, SentinelAddrs: s.Addrs()}
	if change != nil {
		change(options)
	}
	client := redis.NewFailoverClient(options)
	s.t.Cleanup(func() { client.Close() })
	return client
}

// Node returns a client of this server alone, which is closed with the test.
func (s *Sentinels) Node(server *redisserver.Server) *redis.Client { return node(s.t, server) }
