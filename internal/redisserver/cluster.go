package redisserver

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

const slots = 16384

// Cluster is a Redis Cluster on the loopback interface. With three masters or more a
// replica takes over from a master that has gone, within some seconds; of two, the
// one that is left is no majority. Its methods are for one goroutine at a time.
type Cluster struct {
	// Servers are first the masters, then the replicas: Servers[masters+i*replicas+j] is
	// the j-th replica of Servers[i], as they were started; then those of Join.
	Servers []*Server

	options Options
}

// StartCluster runs that many masters, and that many replicas of each. It returns when
// all know each other and what each serves, serve it, and are in sync. That takes two
// seconds, which is how long a master that has just started waits before it serves.
// Each server has a folder of its own below Dir. Args come after the arguments that
// make it a node, and must not ask for a password.
func StartCluster(o Options, masters, replicas int) (*Cluster, error) {
	c := &Cluster{options: o}
	err := c.form(masters, replicas)
	if err != nil {
		c.Kill()
		return nil, fmt.Errorf("a cluster of %d masters with %d replicas each: %w", masters, replicas, err)
	}
	return c, nil
}

func (c *Cluster) form(masters, replicas int) error {
	for range masters * (1 + replicas) {
		if _, err := c.start(); err != nil {
			return err
		}
	}
	for i, s := range c.Servers[:masters] {
		if _, err := s.do("CLUSTER", "SET-CONFIG-EPOCH", i+1); err != nil {
			return err
		}
		add := []any{"CLUSTER", "ADDSLOTS"} // ADDSLOTSRANGE is of Redis 7
		for slot, last := share(i, masters); slot <= last; slot++ {
			add = append(add, slot)
		}
		if _, err := s.do(add...); err != nil {
			return err
		}
	}
	if err := meet(c.Servers); err != nil {
		return err
	}
	for i, s := range c.Servers[masters:] {
		id, err := c.Servers[i/replicas].id()
		if err != nil {
			return err
		}
		if _, err := s.do("CLUSTER", "REPLICATE", id); err != nil {
			return err
		}
	}
	return until(func() error { return c.complete(masters, replicas) })
}

// share returns the first and the last slot of the i-th of that many masters.
func share(i, masters int) (first, last int) {
	return i * slots / masters, (i+1)*slots/masters - 1
}

// start runs one more server, which is a cluster of its own at first.
func (c *Cluster) start() (*Server, error) {
	args := []string{
		"--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1",
		// A master that does not answer for a second is taken for dead.
		"--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0",
		"--cluster-require-full-coverage", "no",
		// A node becomes another's replica only if it is told to, or was failed over.
		"--cluster-allow-replica-migration", "no",
		"--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0",
	}
	s, err := prepare(c.options, fmt.Sprintf("node-%d", len(c.Servers)), append(args, c.options.Args...)...)
	if err != nil {
		return nil, err
	}
	c.Servers = append(c.Servers, s)
	return s, s.Run()
}

// meet introduces each server to the others, and returns when they all know each other.
func meet(servers []*Server) error {
	var introduced time.Time
	rounds := 0
	return until(func() error {
		var missing error
		introduce := time.Since(introduced) > 2*time.Second // longer than an introduction may take
		if introduce {
			introduced = time.Now()
			rounds++
		}
		for i, s := range servers {
			view, err := s.nodes(atLast)
			if err != nil {
				return err
			}
			for j, other := range servers {
				if known, ok := at(view, other.Addr); ok && known.isWell() {
					continue
				}
				missing = fmt.Errorf("%s does not know %s", s.Addr, other.Addr)
				// One of the two is enough, unless only the other has given up on it.
				if introduce && (j < i || rounds > 1) {
					host, port, _ := net.SplitHostPort(other.Addr)
					if _, err := s.do("CLUSTER", "MEET", host, port); err != nil {
						return err
					}
				}
			}
		}
		return missing
	})
}

// complete returns an error unless the cluster is as it shall be at first, by what
// every node says.
func (c *Cluster) complete(masters, replicas int) error {
	for _, s := range c.Servers {
		view, err := s.nodes(atLast)
		if err != nil {
			return err
		}
		if err := s.serves(); err != nil {
			return err
		}
		for i, other := range c.Servers {
			n, ok := at(view, other.Addr)
			right := ok && n.isWell()
			if i < masters {
				first, last := share(i, masters)
				right = right && n.is("master") && slices.Equal(n.slots, [][2]int{{first, last}})
			} else {
				master, _ := at(view, c.Servers[(i-masters)/replicas].Addr)
				right = right && n.is("slave") && n.master == master.id
			}
			if !right {
				return fmt.Errorf("%s knows of %s only %+v", s.Addr, other.Addr, n)
			}
		}
	}
	for i, s := range c.Servers[:masters] {
		if err := replicated(s, c.Servers[masters+i*replicas:][:replicas]); err != nil {
			return err
		}
	}
	return nil
}

// serves returns an error unless the node says that the cluster is well.
func (s *Server) serves() error {
	info, err := text(s.do("CLUSTER", "INFO"))
	if err == nil && !strings.Contains(info, "cluster_state:ok") {
		err = fmt.Errorf("%s: cluster_state is not ok", s.Addr)
	}
	return err
}

func (s *Server) id() (string, error) { return text(s.do("CLUSTER", "MYID")) }

// Addrs returns the addresses of all servers.
func (c *Cluster) Addrs() []string { return addrs(c.Servers) }

// Owner returns the master that serves the slot now. Of the nodes that answer, it
// believes the one that knows of the latest change.
func (c *Cluster) Owner(slot int) (*Server, error) {
	views, err := askAll(c.Servers, (*Server).nodes)
	if err != nil {
		return nil, err
	}
	n, ok := owner(views, slot)
	i := slices.IndexFunc(c.Servers, func(s *Server) bool { return s.Addr == n.addr })
	if !ok || i < 0 {
		return nil, fmt.Errorf("slot %d is served by no node", slot)
	}
	return c.Servers[i], nil
}

// Join runs a new master without slots, and returns when it and all others that
// answer know each other, and it would serve.
func (c *Cluster) Join() (*Server, error) {
	views, err := askAll(c.Servers, (*Server).nodes)
	if err != nil {
		return nil, err
	}
	var all []*Server
	for _, s := range c.Servers {
		if views[s] != nil {
			all = append(all, s)
		}
	}
	s, err := c.start()
	if err != nil {
		return nil, err
	}
	if err := meet(append(all, s)); err != nil {
		return nil, err
	}
	return s, until(s.serves)
}

// Kill ends all servers for good.
func (c *Cluster) Kill() { killAll(c.Servers) }
