package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/redislock/redislock/internal/redisserver"
)

// A topology is how the servers belong together on which the peers lock.
type topology int

const (
	single  topology = iota // one redis-server
	quorum                  // three that know nothing of each other: a lock is held on a majority of them
	cluster                 // a Redis Cluster of three masters
)

// topologyOf returns what a scenario is measured on.
func topologyOf(scenario string) topology {
	switch kind, _, _ := strings.Cut(scenario, "/"); kind {
	case "quorum":
		return quorum
	case "cluster":
		return cluster
	}
	return single
}

// faultOf returns what befalls a server in a scenario.
func faultOf(scenario string) fault {
	for _, f := range []fault{frozen, killed} {
		if strings.HasSuffix(scenario, "-"+string(f)) {
			return f
		}
	}
	return ""
}

// nodes is how many servers the topologies of several have.
const nodes = 3

// A fault is what befalls one of several servers while the peers are at work.
type fault string

const (
	frozen fault = "hung"   // SIGSTOP: its connections stay open, it answers nothing
	killed fault = "killed" // SIGKILL
)

// A site is the servers that the peers lock on.
type site struct {
	on      topology
	servers []*server
	formed  *redisserver.Cluster // of a cluster

	mu   sync.Mutex // guards what follows: a peer that hangs may be left behind
	down int        // which server has a fault, or -1
	mend func() error
}

// startSite starts servers of their own, with their files in folders below dir.
func startSite(on topology, dir string) (s *site, err error) {
	s = &site{on: on, down: -1}
	defer func() {
		if err != nil {
			s.close()
			s = nil
		}
	}()
	if on == cluster {
		if s.formed, err = redisserver.StartCluster(redisserver.Options{Dir: dir}, nodes, 0); err != nil {
			return s, err
		}
		for _, run := range s.formed.Servers {
			one, err := administer(run)
			if err != nil {
				return s, err
			}
			s.servers = append(s.servers, one)
		}
		return s, nil
	}
	n := 1
	if on == quorum {
		n = nodes
	}
	for i := range n {
		folder := filepath.Join(dir, fmt.Sprint("server-", i))
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return s, err
		}
		one, err := startServer(folder)
		if err != nil {
			return s, err
		}
		s.servers = append(s.servers, one)
	}
	return s, nil
}

func (s *site) close() {
	for _, one := range s.servers {
		one.close()
	}
	if s.formed != nil {
		s.formed.Kill()
	}
}

func (s *site) addrs() (addrs []string) {
	for _, one := range s.servers {
		addrs = append(addrs, one.Addr)
	}
	return addrs
}

// reset leaves nothing of what was measured before, on any of the servers.
func (s *site) reset() error {
	if err := s.await(); err != nil {
		return err
	}
	for _, one := range s.servers {
		if err := one.reset(); err != nil {
			return err
		}
	}
	return nil
}

// await returns when a cluster has got over a fault.
func (s *site) await() error {
	if s.on != cluster {
		return nil
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		well := 0
		for _, one := range s.servers {
			info, err := one.admin.ClusterInfo(context.Background()).Result()
			if err != nil {
				return err
			}
			if strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_slots_ok:16384") {
				well++
			}
		}
		if well == len(s.servers) {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("the cluster does not recover")
		}
	}
}

// strike has the i-th server suffer the fault, until heal.
func (s *site) strike(f fault, i int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = i
	one := s.servers[i]
	if f == killed {
		one.Kill()
		s.mend = one.Run
		return nil
	}
	s.mend = one.Thaw
	return one.Freeze()
}

// heal ends a fault, if there is one.
func (s *site) heal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down < 0 {
		return nil
	}
	s.down = -1
	return s.mend()
}

// spent returns what has been spent since the servers and this process began. A
// server with a fault is not asked.
func (s *site) spent() (total cost, err error) {
	s.mu.Lock()
	down := s.down
	s.mu.Unlock()
	for i, one := range s.servers {
		if i == down {
			continue
		}
		c, err := one.spent()
		if err != nil {
			return cost{}, err
		}
		total.commands += c.commands
		total.reads += c.reads
		total.scripts += c.scripts
		total.server += c.server
		total.asked++
	}
	total.client, total.wall = ownCPU(), time.Since(processStart)
	return total, nil
}
