package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/redislock/redislock/internal/redisserver"
)

// clusterSite is a cluster of three masters with a replica each, and one key on each.
type clusterSite struct {
	*redisserver.Cluster
	pairs []*pair
	names []string

	mu    sync.Mutex
	at    []int // which pair has the key
	moves []slotMove
}

// startCluster: masters are replaced when they seem to be gone, or only if their replicas
// are told to.
func startCluster(dir string, replaces bool) (site, error) {
	c, err := redisserver.StartCluster(redisserver.Options{Dir: dir, Args: recording(dir)}, 3, 1)
	if err != nil {
		return nil, err
	}
	s := &clusterSite{Cluster: c}
	if !replaces {
		for _, server := range c.Servers {
			if err := configure(server, "config", "set", "cluster-node-timeout", patience.Milliseconds()); err != nil {
				s.close()
				return nil, err
			}
		}
	}
	for i := range 3 {
		name, err := nameOn(c, c.Servers[i], "chaos-")
		if err != nil {
			s.close()
			return nil, err
		}
		tag, err := nameOn(c, c.Servers[i], "mark-") // of a slot that stays
		if err != nil {
			s.close()
			return nil, err
		}
		folder := filepath.Join(dir, name)
		p, err := newPair(folder, c.Servers[i], c.Servers[3+i], tag)
		if err != nil {
			s.close()
			return nil, err
		}
		s.pairs, s.names, s.at = append(s.pairs, p), append(s.names, name), append(s.at, i)
	}
	return s, nil
}

// nameOn returns a key that the server has, and that begins so.
func nameOn(c *redisserver.Cluster, server *redisserver.Server, begins string) (string, error) {
	client := newAdmin(server.Addr)
	defer client.Close()
	for i := 0; ; i++ {
		name := fmt.Sprint(begins, i)
		slot, err := client.ClusterKeySlot(context.Background(), name).Result()
		if err != nil {
			return "", err
		}
		owner, err := c.Owner(int(slot))
		if err != nil || owner == server {
			return name, err
		}
	}
}

func (s *clusterSite) reach() reach { return reach{cluster, s.Addrs()} }

func (s *clusterSite) addrs() map[string]string { return straight(s.Addrs()) }

func (s *clusterSite) keys() []string { return s.names }

func (s *clusterSite) master(key string) node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pairs[s.at[slices.Index(s.names, key)]].master()
}

func (s *clusterSite) masters() (all []node) {
	for _, p := range s.pairs {
		all = append(all, p.master())
	}
	return all
}

func (s *clusterSite) nodes() (all []node) {
	for _, p := range s.pairs {
		all = append(all, p.nodes()...)
	}
	return all
}

func (s *clusterSite) end(ttl func(string) (int64, bool)) (all []record, err error) {
	for i, p := range s.pairs {
		r, err := p.end(s.names[i])
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	if len(s.moves) == 0 {
		return all, nil
	}
	return s.followSlots(all, ttl)
}

func (s *clusterSite) close() {
	for _, p := range s.pairs {
		p.close()
	}
	s.Kill()
}

func (s *clusterSite) handOver(e *episode) {
	e.count("planned failover", "")
	p := s.pairs[e.below(3)]
	old := p.at
	// A replica that won an election may do so again, without asking anybody and for a
	// moment only, until four times the node time-out has passed: see findings.
	time.Sleep(electionsApart - time.Since(p.won[1-old]))
	e.must(p.handOver(func(ctx context.Context, heir int) error { return p.admins[heir].ClusterFailover(ctx).Err() }, nil))
	e.must(p.follow(old))
	e.work()
}

// electionsApart is four times cluster-node-timeout, and a little more.
const electionsApart = 4500 * time.Millisecond

func (s *clusterSite) kill(e *episode) {
	e.count("kill -9 of a master", "")
	e.must(s.pairs[e.below(3)].kill(func(int) error { return nil }))
	e.work()
}

func (s *clusterSite) outlive(e *episode, stands bool) {
	p := s.pairs[e.below(3)]
	e.must(p.outlive(stands, func(heir int) error {
		if stands {
			return nil
		}
		return until("the replica takes over", func(ctx context.Context) error {
			return p.admins[heir].Do(ctx, "cluster", "failover", "takeover").Err()
		})
	}, func(int) error { return nil }))
	e.work()
}
