package redistest

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock/internal/redisserver"
)

// Cluster is a Redis Cluster of the test's own.
type Cluster struct {
	*redisserver.Cluster

	t testing.TB
}

// StartCluster starts a cluster without persistence of that many masters, and that
// many replicas of each.
func StartCluster(t testing.TB, masters, replicas int) *Cluster {
	t.Helper()
	watch(t)
	cluster, err := redisserver.StartCluster(redisserver.Options{Dir: t.TempDir()}, masters, replicas)
	must(t, err)
	t.Cleanup(cluster.Kill)
	return &Cluster{Cluster: cluster, t: t}
}

// Client returns a client of the cluster that is closed with the test. change, if not
// nil, may change its options.
func (c *Cluster) Client(change func(*redis.ClusterOptions)) *redis.ClusterClient {
	options := &redis.ClusterOptions{Addrs: c.Addrs()}
	if change != nil {
		change(options)
	}
	client := redis.NewClusterClient(options)
	c.t.Cleanup(func() { client.Close() })
	return client
}

// Node returns a client of this server alone, which is closed with the test. It does
// not follow MOVED.
func (c *Cluster) Node(s *redisserver.Server) *redis.Client { return node(c.t, s) }

func node(t testing.TB, s *redisserver.Server) *redis.Client {
	client := redis.NewClient(&redis.Options{Addr: s.Addr})
	t.Cleanup(func() { client.Close() })
	return client
}
