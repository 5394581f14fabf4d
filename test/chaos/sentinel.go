package main

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock/internal/redisserver"
)

// sentinelSite is a master and its replica, of which sentinels take care.
type sentinelSite struct {
	pairSite
	*redisserver.Sentinels
	sentinel *redis.Client // the controller's, of one of them
}

// startSentinel: masters are replaced when they seem to be gone, or only if they are told
// to.
func startSentinel(dir string, replaces bool) (site, error) {
	// Nothing but what clients write goes to the replica: a master that is to be
	// replaced waits until it has got all.
	args := append(recording(dir), "--repl-ping-replica-period", "3600")
	s, err := redisserver.StartSentinels(redisserver.Options{Dir: dir, Args: args}, 1, 3)
	if err != nil {
		return nil, err
	}
	if !replaces {
		for _, sentinel := range s.Sentinels {
			if err := configure(sentinel, "sentinel", "set", s.Name, "down-after-milliseconds", patience.Milliseconds()); err != nil {
				s.Kill()
				return nil, err
			}
		}
	}
	p, err := newPair(dir, s.Master, s.Replicas[0], "")
	if err != nil {
		s.Kill()
		return nil, err
	}
	p.follows = true
	return &sentinelSite{pairSite{p}, s, newAdmin(s.Sentinels[0].Addr)}, nil
}

func (s *sentinelSite) reach() reach { return reach{sentinel, s.Addrs()} }

func (s *sentinelSite) addrs() map[string]string {
	return straight(append(s.Addrs(), s.servers[0].Addr, s.servers[1].Addr))
}

func (s *sentinelSite) close() {
	s.sentinel.Close()
	s.pair.close()
	s.Kill()
}

// handOver has the sentinels put the replica in the master's place. They would not
// wait until it has got everything; so nothing is written meanwhile.
func (s *sentinelSite) handOver(e *episode) {
	e.count("planned failover", "")
	old := s.at
	e.must(s.pair.handOver(func(ctx context.Context, heir int) error {
		master := s.admins[old]
		if err := master.Do(ctx, "client", "pause", patience.Milliseconds(), "write").Err(); err != nil {
			return err
		}
		err := s.inStep(ctx, heir)
		if err == nil {
			err = s.sentinel.Do(ctx, "sentinel", "failover", s.Name).Err()
		}
		if err != nil {
			master.ClientUnpause(ctx)
		}
		return err
	}, func(ctx context.Context, heir int) error {
		// The sentinels cannot: the pause holds up what they publish there, and with
		// that their connections.
		host, port := hostAndPort(s.servers[heir])
		if err := s.admins[old].ReplicaOf(ctx, host, port).Err(); err != nil {
			return err
		}
		return s.admins[old].ClientUnpause(ctx).Err()
	}))
	e.must(s.follow(old))
	e.work()
}

// inStep waits until the heir has got all that the master has written.
func (s *sentinelSite) inStep(ctx context.Context, heir int) error {
	for {
		master, err := s.info(ctx, 1-heir)
		if err != nil {
			return err
		}
		replica, err := s.info(ctx, heir)
		if err != nil {
			return err
		}
		if master["master_repl_offset"] == replica["slave_repl_offset"] {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *sentinelSite) kill(e *episode) {
	e.count("kill -9 of the master", "")
	e.must(s.pair.kill(func(int) error { return nil }))
	e.work()
}

func (s *sentinelSite) outlive(e *episode, stands bool) {
	e.must(s.pair.outlive(stands, func(int) error {
		if stands {
			return nil
		}
		return until("the sentinels replace the master", func(ctx context.Context) error {
			return s.sentinel.Do(ctx, "sentinel", "failover", s.Name).Err()
		})
	}, func(int) error { return nil }))
	e.work()
}
