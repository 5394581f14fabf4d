package main

import (
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock/internal/redisserver"
)

// quorumSite is three servers that know nothing of each other.
type quorumSite struct {
	servers []*redisserver.Server
	admins  []*redis.Client
}

func startQuorum(dir string) (site, error) {
	s := new(quorumSite)
	for i := range 3 {
		server, err := startRecording(dir, i)
		if err != nil {
			s.close()
			return nil, err
		}
		s.servers, s.admins = append(s.servers, server), append(s.admins, newAdmin(server.Addr))
	}
	return s, nil
}

func (s *quorumSite) reach() (r reach) {
	r.Kind = quorum
	for _, server := range s.servers {
		r.Addrs = append(r.Addrs, server.Addr)
	}
	return r
}

func (s *quorumSite) addrs() map[string]string { return straight(s.reach().Addrs) }

func (s *quorumSite) keys() []string     { return keys }
func (s *quorumSite) master(string) node { return s.nodes()[0] }
func (s *quorumSite) masters() []node    { return s.nodes() }

func (s *quorumSite) nodes() (all []node) {
	for i, server := range s.servers {
		all = append(all, node{server, s.admins[i]})
	}
	return all
}

// end: what holds is what most of them say, which no one file has. So only what the
// callers saw is checked.
func (s *quorumSite) end(func(string) (int64, bool)) (all []record, err error) {
	for _, key := range keys {
		all = append(all, record{keys: []string{key}})
	}
	return all, nil
}

func (s *quorumSite) close() {
	for i, server := range s.servers {
		s.admins[i].Close()
		server.Kill()
	}
}

// hurt does something to one of the servers; the others are the majority.
func (s *quorumSite) hurt(e *episode) {
	hit := e.one(s.nodes())
	others := append(slices.Clone(ofServers), ofServersBesides...)
	switch n := e.below(int64(4 + len(others))); n {
	case 0:
		e.count("kill -9 of a node", "")
		hit.Kill()
		time.Sleep(e.upTo(500 * time.Millisecond))
		e.must(hit.Run())
	case 1:
		e.count("black hole before a node", "")
		e.weatherBefore(hit.Addr, weather{dropRequests: e.below(2) == 0, dropReplies: true}, e.upTo(2*maxTTL))
	case 2:
		e.count("latency of a node", "")
		e.weatherBefore(hit.Addr, weather{delay: e.upTo(50 * time.Millisecond), jitter: 1 + e.upTo(50*time.Millisecond)}, e.upTo(time.Second))
	case 3:
		e.count("half-open connections to a node", "")
		for _, proxies := range e.proxies {
			proxies[hit.Addr].forget()
		}
	default:
		others[n-4].inject(e, []node{hit})
	}
}

// weatherBefore changes the weather between all workers and one server for a while.
func (e *episode) weatherBefore(addr string, w weather, while time.Duration) {
	var hit []*proxy
	for _, proxies := range e.proxies {
		hit = append(hit, proxies[addr])
	}
	forAWhile(hit, w, while)
}
