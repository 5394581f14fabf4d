package main

import (
	"context"
	"time"

	"github.com/redislock/redislock/internal/redisserver"
)

// virtual is the one address that leads to a master, wherever that is.
const virtual = "127.0.0.1:1"

// addressSite is a master and its replica behind one address, as a name or a load
// balancer is.
type addressSite struct{ pairSite }

func startAddress(dir string) (site, error) {
	var servers [2]*redisserver.Server
	for i := range servers {
		args := []string{"--repl-diskless-sync-delay", "0"}
		if i > 0 {
			host, port := hostAndPort(servers[0])
			args = append(args, "--replicaof", host, port)
		}
		var err error
		if servers[i], err = startRecording(dir, i, args...); err != nil {
			return nil, err
		}
	}
	servers[1].Args = servers[0].Args
	p, err := newPair(dir, servers[0], servers[1], "")
	if err != nil {
		return nil, err
	}
	p.follows = true
	return addressSite{pairSite{p}}, nil
}

func (s addressSite) reach() reach { return reach{single, []string{virtual}} }

func (s addressSite) addrs() map[string]string {
	return map[string]string{virtual: s.servers[s.at].Addr}
}

// leadTo has new connections led to a server, and the old ones stay where they are,
// or are broken.
func (e *episode) leadTo(addr string, broken bool) {
	for _, proxies := range e.proxies {
		proxies[virtual].leadTo(addr)
		if broken {
			proxies[virtual].reset()
		}
	}
}

func (s addressSite) handOver(e *episode) {
	e.count("planned failover", "")
	old := s.at
	e.must(s.pair.handOver(func(ctx context.Context, heir int) error {
		host, port := hostAndPort(s.servers[heir])
		return s.pair.master().admin.Do(ctx, "failover", "to", host, port).Err()
	}, nil))
	// Some of the clients are still connected to the old master, which is a replica now.
	time.Sleep(e.upTo(100 * time.Millisecond))
	e.leadTo(s.servers[s.at].Addr, e.below(2) == 0)
	e.must(s.follow(old))
	e.work()
}

func (s addressSite) kill(e *episode) {
	e.count("kill -9 of the master", "")
	e.must(s.pair.kill(s.promote(e)))
	e.work()
}

// promote makes the replica the master. Those who are connected to the old one stay.
func (s addressSite) promote(e *episode) func(heir int) error {
	return func(heir int) error {
		time.Sleep(e.upTo(500 * time.Millisecond))
		if err := s.admins[heir].ReplicaOf(context.Background(), "no", "one").Err(); err != nil {
			return err
		}
		e.leadTo(s.servers[heir].Addr, false)
		return nil
	}
}

func (s addressSite) outlive(e *episode, stands bool) {
	e.must(s.pair.outlive(stands, s.promote(e), func(heir int) error {
		time.Sleep(e.upTo(2 * maxTTL))
		host, port := hostAndPort(s.servers[heir])
		return s.admins[1-heir].ReplicaOf(context.Background(), host, port).Err()
	}))
	e.work()
}
