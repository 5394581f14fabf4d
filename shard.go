package redislock

import (
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// A shard is one of the servers that the locks are kept on: the only one, a
// master of a cluster, or a node of a quorum. It has a sender and a subscription
// of its own, so that a server that is slow or gone holds up nobody but who needs
// it.
type shard struct {
	m      *LockManager
	client redis.UniversalClient // follows redirections
	db     int                   // that client is in
	node   redis.UniversalClient // of this server, whatever it serves; nil: not known which

	sender
	clock   clock
	doubted time.Time // what was sent before tells nothing of the clock: see doubt
	events  events

	touched bool // in manager.touched
}

func (m *LockManager) newShard(client, node redis.UniversalClient) *shard {
	s := &shard{m: m, client: client, node: node}
	if c, ok := node.(interface{ Options() *redis.Options }); ok {
		s.db = c.Options().DB
	}
	s.sender.init()
	s.events.init(s)
	m.shards = append(m.shards, s)
	return s
}

// A slot is a hash slot: the keys in it are on the same server, now and after they
// have moved to another one, and share a fence and, for each manager, a grant
// channel. Without a cluster all keys are in one slot. Guarded by the manager's
// mutex.
type slot struct {
	number uint16           // 0 without a cluster
	key    string           // one that is in this slot, to ask for its server; empty without a cluster
	lines  map[string]*line // by the key in Redis

	fence   any    // key of the fence, as an argument
	probe   string // a key of this slot that is never there
	grants  any    // what grant channels begin with, as an argument
	channel string // this manager's grant channel

	floor   int64     // the fence is known to be above it
	raised  time.Time // when it was last raised to the server's clock, or later
	mending bool      // a claim has begun it, and opRaise is to give it a time to live
	share   share     // of the batch that is being put together

	at    *shard // whose subscription is to have the grant channel; nil: none
	ready bool   // it has: grants arrive

	readyAt time.Time // since when
	trust   trust     // in what arrives
}

// slotOf returns the slot of a key. The caller holds m.mu.
func (m *LockManager) slotOf(key string) *slot {
	var number uint16
	if m.topology != nil {
		number = slotOf(key)
	}
	sl := m.slots[number]
	if sl == nil {
		tag := ""
		if m.topology != nil {
			tag = slotTag(number)
		}
		sl = newSlot(number, tag, m.id)
		m.slots[number] = sl
	}
	return sl
}

// newSlot names what the keys of a slot share. tag hashes to the slot; without a
// cluster it is empty.
func newSlot(number uint16, tag, manager string) *slot {
	fence, grants, probe := fenceKey, grantChannel, probeKey
	if tag != "" {
		fence += ":{" + tag + "}"
		grants += "{" + tag + "}:"
		probe += ":{" + tag + "}"
	}
	return &slot{
		number: number, key: tag, lines: make(map[string]*line),
		fence: fence, grants: grants, channel: grants + manager, probe: probe,
	}
}

// allLines calls f for every line. The caller holds m.mu.
func (m *LockManager) allLines(f func(*line)) {
	for _, sl := range m.slots {
		for _, ln := range sl.lines {
			f(ln)
		}
	}
}

// shardFor returns the shard that an op goes to. The caller holds m.mu.
func (m *LockManager) shardFor(o *op) *shard {
	if m.quorum != nil {
		return m.shards[o.node]
	}
	return m.shardOf(o.lock.line.slot)
}

// shardOf returns the shard that serves the slot, as far as is known. The caller
// holds m.mu.
func (m *LockManager) shardOf(sl *slot) *shard {
	t := m.topology
	if t == nil || !t.known {
		return m.shards[0]
	}
	node, err := t.cluster.MasterForKey(context.Background(), sl.key) // from memory
	if err != nil {
		return m.shards[0] // where the client goes on to look for the cluster
	}
	s := t.byNode[node]
	if s == nil {
		s = m.newShard(m.client, node)
		t.byNode[node] = s
	}
	return s
}

// A cluster is what the library needs of redis.ClusterClient.
type cluster interface {
	redis.UniversalClient
	MasterForKey(ctx context.Context, key string) (*redis.Client, error)
	ForEachMaster(ctx context.Context, f func(context.Context, *redis.Client) error) error
	ReloadState(ctx context.Context)
}

// topology is which master of a cluster serves which slot. The client knows it;
// here it is for keeping apart what goes to different servers, and for having the
// subscriptions where the keys are.
//
// Until the client has first heard from the cluster, which it does with the first
// request, all goes through the shard that came first and has no node of its own.
//
// Guarded by the manager's mutex.
type topology struct {
	cluster cluster
	known   bool
	byNode  map[*redis.Client]*shard

	surveying bool // a timer will call survey
	surveys   int  // in a row
}

// unsettled has the topology looked at anew, now and until all is well: something
// failed that may have to do with it. The caller holds m.mu.
func (t *topology) unsettled(m *LockManager) {
	if t == nil || t.surveying || m.closed {
		return
	}
	t.surveying = true
	t.cluster.ReloadState(context.Background()) // in the background
	time.AfterFunc(backoff(t.surveys), func() {
		m.mu.Lock()
		defer m.exit()
		t.surveying = false
		if !m.closed {
			t.survey(m)
		}
	})
}

// survey moves whatever is not where the client now says that its slot is:
// requests to be sent, and subscriptions.
func (t *topology) survey(m *LockManager) {
	amiss := false
	for _, s := range slices.Clone(m.shards) {
		for _, ops := range []*opList{&s.extends, &s.pending} {
			for range ops.length { // what stays comes back at the end
				m.submit(ops.pop())
			}
		}
		amiss = amiss || s.failures > 0 || s.refused.length > 0 || s.overdue(time.Now()) > 0
	}
	for _, sl := range m.slots {
		if len(sl.lines) == 0 || sl.at == nil && !sl.wanted() {
			continue
		}
		if s := m.shardOf(sl); sl.at != s {
			m.unlisten(sl)
			m.listen(sl)
		}
		amiss = amiss || sl.wanted() && !sl.ready
	}
	t.drop(m)
	if !amiss {
		t.surveys = 0
		return
	}
	t.surveys++
	t.unsettled(m)
}

// heard: the client has had answers, so it knows which server has which slot.
func (t *topology) heard() {
	if t != nil {
		t.known = true
	}
}

// drop forgets shards that have nothing to do: they may be gone for good. Those
// that are not come back with the next request.
func (t *topology) drop(m *LockManager) {
	for node, s := range t.byNode {
		if s.backlog()+s.refused.length+len(s.inFlight) > 0 || s.events.started {
			continue
		}
		delete(t.byNode, node)
		m.shards = slices.DeleteFunc(m.shards, func(other *shard) bool { return other == s })
		close(s.work)
	}
}

// wanted tells whether callers wait for grants in this slot.
func (sl *slot) wanted() bool {
	for _, ln := range sl.lines {
		if ln.length > 0 {
			return true
		}
	}
	return false
}
