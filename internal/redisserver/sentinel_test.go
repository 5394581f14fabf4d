package redisserver_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock/internal/redisserver"
	"github.com/redislock/redislock/internal/redistest"
)

func portOf(s *redisserver.Server) string {
	_, port, _ := net.SplitHostPort(s.Addr)
	return port
}

// gone tells whether nobody listens on the server's port.
func gone(s *redisserver.Server) bool {
	conn, err := net.Dial("tcp", s.Addr)
	if err == nil {
		conn.Close()
	}
	return err != nil
}

// follows tells whether a server is a replica of the master, and in sync.
func follows(client *redis.Client, master *redisserver.Server) bool {
	info := client.Info(context.Background(), "replication").Val()
	return strings.Contains(info, "role:slave") && strings.Contains(info, "master_port:"+portOf(master)+"\r\n") &&
		strings.Contains(info, "master_link_status:up")
}

func current(t *testing.T, s *redistest.Sentinels) *redisserver.Server {
	t.Helper()
	master, err := s.Current()
	require.NoError(t, err)
	return master
}

func TestSentinelsAreCompleteWhenStarted(t *testing.T) {
	ctx := context.Background()
	s := redistest.StartSentinels(t, 2, 3)
	require.Len(t, s.Addrs(), 3)
	require.Same(t, s.Master, current(t, s))
	for _, replica := range s.Replicas {
		require.True(t, follows(s.Node(replica), s.Master))
	}
	for _, sentinel := range s.Sentinels.Sentinels {
		answer, err := s.Node(sentinel).Do(ctx, "SENTINEL", "CKQUORUM", s.Name).Text()
		require.NoError(t, err)
		require.Contains(t, answer, "OK 3 usable Sentinels")
	}
	require.NoError(t, s.Client(nil).Set(ctx, "key", "value", 0).Err())
	require.Equal(t, "value", s.Node(s.Master).Get(ctx, "key").Val())

	s.Kill()
	for _, server := range append([]*redisserver.Server{s.Master, s.Replicas[1]}, s.Sentinels.Sentinels...) {
		require.True(t, gone(server), server.Addr)
	}
	_, err := s.Current()
	require.ErrorContains(t, err, "nobody answers")
}

func TestSentinelsPutAReplicaInPlaceOfAMasterThatIsGone(t *testing.T) {
	ctx := context.Background()
	s := redistest.StartSentinels(t, 2, 3)
	client := s.Client(nil)
	nodes := make(map[*redisserver.Server]*redis.Client)
	for _, server := range append([]*redisserver.Server{s.Master}, s.Replicas...) {
		nodes[server] = s.Node(server)
	}
	var sentinels []*redis.Client
	for _, sentinel := range s.Sentinels.Sentinels {
		sentinels = append(sentinels, s.Node(sentinel))
	}

	failOver := func(fail, mend func(master *redisserver.Server) error) {
		master := current(t, s)
		before, err := client.Incr(ctx, "key").Result()
		require.NoError(t, err)
		for server, node := range nodes {
			eventually(t, "all have the key", func() bool {
				n, err := node.Get(ctx, "key").Int64()
				return err == nil && n >= before && (server == master || follows(node, master))
			})
		}
		require.NoError(t, fail(master))
		eventually(t, "another is the master", func() bool { now, err := s.Current(); return err == nil && now != master })
		var after int64
		eventually(t, "the client writes again", func() bool {
			after, err = client.Incr(ctx, "key").Result()
			return err == nil
		})
		require.Greater(t, after, before, "what was replicated is not lost")

		require.NoError(t, mend(master))
		eventually(t, "the old master follows the new one", func() bool {
			now, err := s.Current()
			return err == nil && follows(nodes[master], now)
		})
		for _, sentinel := range sentinels {
			eventually(t, "all sentinels know each other", func() bool {
				answer, _ := sentinel.Do(ctx, "SENTINEL", "CKQUORUM", s.Name).Text()
				return strings.Contains(answer, "OK 3 usable Sentinels")
			})
		}
	}

	kill := func(master *redisserver.Server) error { master.Kill(); return nil }
	failOver(kill, (*redisserver.Server).Run)
	failOver(func(master *redisserver.Server) error {
		s.Sentinels.Sentinels[0].Kill() // the others are still a majority
		return master.Freeze()
	}, func(master *redisserver.Server) error {
		require.NoError(t, s.Sentinels.Sentinels[0].Run())
		return master.Thaw()
	})
	failOver(kill, (*redisserver.Server).Run)
}
