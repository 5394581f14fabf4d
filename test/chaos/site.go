package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock/internal/redisserver"
	"github.com/redislock/redislock/test/aof"
	"github.com/redislock/redislock/test/check"
)

// A site is the Redis of an episode: one server, or several.
type site interface {
	// reach says how the workers get at it.
	reach() reach

	// addrs are the addresses that the workers know, and where each leads at first.
	addrs() map[string]string

	// keys are those that the workers lock.
	keys() []string

	// master is the server that has the key now.
	master(key string) node

	// masters are all servers that have any.
	masters() []node

	// nodes are these, and their replicas.
	nodes() []node

	// end ends the servers, and returns what they have recorded. ttl tells the TTL, in
	// ms, that the owner of a value asked for.
	end(ttl func(value string) (int64, bool)) ([]record, error)

	close()
}

// A reach is how a worker makes its clients: of which kind, and to which addresses.
type reach struct {
	Kind  string
	Addrs []string
}

// The kinds of sites.
const (
	single   = ""         // one server
	address  = "address"  // a master and its replica, behind one address
	sentinel = "sentinel" // a master and its replica, and sentinels
	cluster  = "cluster"
	quorum   = "quorum"
)

func (e *episode) startSite() (site, error) {
	if err := os.WriteFile(filepath.Join(e.dir, "users.acl"), []byte(users), 0o600); err != nil {
		return nil, err
	}
	switch e.fault.on {
	case address:
		return startAddress(e.dir)
	case sentinel:
		return startSentinel(e.dir, e.fault.replaces)
	case cluster:
		return startCluster(e.dir, e.fault.replaces)
	case quorum:
		return startQuorum(e.dir)
	}
	return startServer(e.dir, e.fault.movableClock)
}

// A record is the true history of some keys.
type record struct {
	keys    []string // none: of all
	entries []aof.Entry
	lost    int // entries of a server that died before it had passed them on
}

// gone is the TTL of a key that has ended since it was listed.
const gone = -2

// leftover lists the keys that are still in Redis, with their TTLs.
func (e *episode) leftover() (left []check.Leftover, err error) {
	ctx := context.Background()
	for _, master := range e.site.masters() {
		names, err := master.admin.Keys(ctx, "*").Result()
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			ttl, err := master.admin.PTTL(ctx, name).Result()
			if err != nil {
				return nil, err
			}
			if ttl != gone {
				left = append(left, check.Leftover{Key: name, TTL: ttl})
			}
		}
	}
	return left, nil
}

// checkFlags complains where notifications that others had switched on are gone.
func (e *episode) checkFlags() {
	for _, master := range e.site.masters() {
		flags := master.admin.ConfigGet(context.Background(), "notify-keyspace-events").Val()["notify-keyspace-events"]
		for _, flag := range foreignFlags {
			if !strings.ContainsRune(flags, flag) {
				e.complain("notifications that others had switched on are gone: %q", flags)
				break
			}
		}
	}
}

// A single server is a site.

func (s *server) reach() reach             { return reach{single, []string{s.Addr}} }
func (s *server) addrs() map[string]string { return straight([]string{s.Addr}) }
func (s *server) keys() []string           { return keys }
func (s *server) master(string) node       { return node{s.Server, s.admin} }
func (s *server) masters() []node          { return []node{s.master("")} }
func (s *server) nodes() []node            { return s.masters() }

func (s *server) end(func(string) (int64, bool)) ([]record, error) {
	s.Kill()
	var folders []string
	for _, life := range s.lives {
		folders = append(folders, appendOnly(life))
	}
	entries, err := aof.Read(folders...)
	return []record{{entries: entries}}, err
}

// startRecording starts the i-th server of a site, whose history is read.
func startRecording(dir string, i int, args ...string) (*redisserver.Server, error) {
	folder := filepath.Join(dir, fmt.Sprint("redis-", i))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	return redisserver.Start(redisserver.Options{Dir: folder, Args: append(recording(dir), args...)})
}

// hostAndPort are the two parts of a server's address.
func hostAndPort(server *redisserver.Server) (host, port string) {
	host, port, _ = strings.Cut(server.Addr, ":") // 127.0.0.1
	return host, port
}

// straight has each address lead to itself.
func straight(addrs []string) map[string]string {
	all := make(map[string]string)
	for _, addr := range addrs {
		all[addr] = addr
	}
	return all
}

// appendOnly returns where a server in the folder keeps its append-only files.
func appendOnly(dir string) string { return filepath.Join(dir, "appendonlydir") }

// recording are the arguments of a server whose history is read, of a site in the
// folder.
func recording(dir string) []string {
	return append([]string{
		"--enable-debug-command", "yes", "--notify-keyspace-events", foreignFlags, "--aclfile", filepath.Join(dir, "users.acl"),
	}, aof.Settings...)
}

// newAdmin returns the controller's own client of a server.
func newAdmin(addr string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: addr, MaxRetries: -1, ReadTimeout: 10 * time.Second, DialerRetries: 1, ContextTimeoutEnabled: true,
		OnConnect: func(ctx context.Context, conn *redis.Conn) error {
			_ = conn.ReadOnly(ctx) // a node of a cluster that is a replica says then what it has
			return nil
		},
	})
}

// configure tells a server, or a sentinel, something.
func configure(server *redisserver.Server, args ...any) error {
	admin := newAdmin(server.Addr)
	defer admin.Close()
	return admin.Do(context.Background(), args...).Err()
}
