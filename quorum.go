package redislock

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// quorum is what a manager of a quorum knows beside its shards, which are the
// nodes. Guarded by the manager's mutex.
type quorum struct {
	majority  int
	minUptime int64 // of a node that votes, in s; 0: any
	highest   int64 // the highest token that was seen
}

// NewQuorumManager returns a manager whose locks are each held on a majority of
// independent Redis masters: Redlock, as the distlock page has it
// (https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/). The
// locks outlive the loss of any minority of the nodes, and cost a round trip to
// all of them at once. clients are those of at least 3 servers, an odd number,
// none of which replicates another. All who share locks have to name the same
// servers.
//
// What is different from a single Redis:
//
//   - Callers of this manager are served in their order. Between managers there
//     is no line: each has its first caller try, at random moments after the key
//     has become free, and after a release it stands back for the others.
//   - ValidUntil is another 2 ms earlier, and a TTL is at least 5 ms.
//   - A node that lost its keys in a restart may help a second holder to a
//     majority while the lease of the first lasts: see WithRestartGuard. The
//     same goes for a server's clock that jumps. Who begins after another has
//     returned has the higher token all the same, if the servers' clocks differ by
//     less than the restart took. Where a lock
//     guards data, have the storage check the token: no lease, on however many
//     servers, stops a holder that was paused beyond it.
//   - A call fails, if it has never heard from a majority of nodes, after four
//     votes, or 2 s where they refuse connections; if nodes were merely too slow, Lock goes on for a second at least. The
//     error is none of the sentinels, and has what each node said. A call that has
//     heard from a majority goes on trying within its context.
//   - Nodes have a tenth of the TTL to answer, but no less than 10 ms or a third of
//     it. So a TTL below 100 ms fails where the machines or the network are busy.
//
// Nothing is sent, except with KeyspaceRequired: then it waits for all nodes, for up to
// 5 s, and fails unless a majority has the events.
func NewQuorumManager(clients []redis.UniversalClient, opts ...Option) (*LockManager, error) {
	m := newManager()
	if err := m.setUpQuorum(clients, opts); err != nil {
		return nil, &Error{callNew, "", err}
	}
	return m, nil
}

func (m *LockManager) setUpQuorum(clients []redis.UniversalClient, opts []Option) error {
	if err := checkNodes(clients); err != nil {
		return err
	}
	if err := m.setOptions(opts); err != nil {
		return err
	}
	if m.opts.replicas > 0 {
		return invalid("replicas: the nodes of a quorum have none that count")
	}
	m.quorum = &quorum{majority: len(clients)/2 + 1}
	if m.opts.guard > 0 {
		// The server counts its uptime in seconds, of which it may not have had the
		// first.
		m.quorum.minUptime = int64((m.opts.guard+time.Second-1)/time.Second) + 1
	}
	for _, client := range clients {
		m.newShard(client, client)
	}
	if m.opts.keyspace == KeyspaceRequired {
		return m.configureNodes()
	}
	return nil
}

// checkNodes tells servers that cannot be a quorum, as far as can be seen.
func checkNodes(clients []redis.UniversalClient) error {
	if n := len(clients); n < 3 || n%2 == 0 {
		return invalid("a quorum of %d nodes: want an odd number, 3 or more", n)
	}
	seen := make(map[any]int)
	for i, client := range clients {
		name := fmt.Sprintf("client %d of %d", i+1, len(clients))
		if isNil(client) {
			return invalid("%s is nil", name)
		}
		if _, ok := client.(cluster); ok {
			return invalid("%s is of a cluster: a quorum is made of independent masters", name)
		}
		if isRing(client) {
			return invalid("%s is a %T, a Ring: a quorum is made of independent masters", name, client)
		}
		var keys []any
		if reflect.ValueOf(client).Comparable() { // of a wrapper it may be not
			keys = append(keys, client)
		}
		if c, ok := client.(interface{ Options() *redis.Options }); ok {
			o := c.Options()
			if o.Addr == "FailoverClient" {
				return invalid("%s is of a Sentinel: a failover may lose votes", name)
			}
			keys = append(keys, serverOf(o))
		}
		for _, key := range keys {
			if other, twice := seen[key]; twice {
				return invalid("%s is of the same server as client %d", name, other+1)
			}
			seen[key] = i
		}
	}
	return nil
}

// serverOf returns a name that is the same for all addresses that are known to be
// of one server.
func serverOf(o *redis.Options) string {
	host, port, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return o.Addr // a socket's path
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if ip := net.ParseIP(host); ip != nil {
		host = ip.String()
		if ip.IsLoopback() || ip.IsUnspecified() {
			host = ""
		}
	}
	if host == "localhost" {
		host = ""
	}
	return host + ":" + port
}

// configureNodes switches keyspace events on, as KeyspaceRequired wants it. A
// majority of nodes is enough: no more is needed to hold a lock.
func (m *LockManager) configureNodes() error {
	errs := make([]error, len(m.shards))
	var wg sync.WaitGroup
	for i, s := range m.shards {
		wg.Go(func() { errs[i] = m.require(context.Background(), s.node) })
	}
	wg.Wait()
	reasons := slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil })
	configured := len(errs) - len(reasons)
	if configured >= m.quorum.majority {
		return nil
	}
	return fmt.Errorf("keyspace events on %d of %d nodes: %w", configured, len(errs), causes(reasons...))
}

// propose returns a token that all nodes can agree to, most often: above all that
// were seen, and not below any server's clock.
func (q *quorum) propose(m *LockManager, now time.Time) int64 {
	token := q.highest + 1
	for _, s := range m.shards {
		if c := &s.clock; c.known() {
			token = max(token, (c.server + now.Sub(c.received)).Microseconds())
		}
	}
	return token
}
