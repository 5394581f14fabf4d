package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// nodes are the servers of a quorum, and clients to look into them.
type nodes struct {
	t       *testing.T
	servers []*redistest.Server
	direct  []*redis.Client
	gone    map[int]bool // those that were killed for good
}

func startNodes(t *testing.T, n int, args ...string) *nodes {
	t.Helper()
	ns := &nodes{t: t, gone: make(map[int]bool)}
	for range n {
		s := redistest.Start(t, args...)
		ns.servers = append(ns.servers, s)
		ns.direct = append(ns.direct, s.Client(nil))
	}
	return ns
}

// clients returns one for each node. They wait for replies far longer than votes
// do, and dial once.
func (ns *nodes) clients(change ...func(node int, o *redis.Options)) []redis.UniversalClient {
	all := make([]redis.UniversalClient, len(ns.servers))
	for i, s := range ns.servers {
		all[i] = s.Client(func(o *redis.Options) {
			o.ReadTimeout, o.DialerRetries = 3*time.Second, 1
			for _, f := range change {
				f(i, o)
			}
		})
	}
	return all
}

// clientsPatience is a client's time-out that is longer than a busy machine takes: who
// waited for it has waited for far too long.
const clientsPatience = 25 * time.Second

func patientClient(_ int, o *redis.Options) { o.ReadTimeout = clientsPatience }

// manager returns one with clients of its own.
func (ns *nodes) manager(opts ...redislock.Option) *redislock.LockManager {
	ns.t.Helper()
	return newQuorum(ns.t, ns.clients(), opts...)
}

func newQuorum(t *testing.T, clients []redis.UniversalClient, opts ...redislock.Option) *redislock.LockManager {
	t.Helper()
	checkGoroutines(t)
	m, err := redislock.NewQuorumManager(clients, opts...)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, m.Close())
		require.True(t, m.Idle(), "the closed manager remembers locks")
	})
	return m
}

// holders returns how many nodes have the value under the key.
func (ns *nodes) holders(key, value string) (n int) {
	for _, c := range ns.direct {
		if c.Get(ctx, key).Val() == value {
			n++
		}
	}
	return n
}

// set has some nodes hold another program's value.
func (ns *nodes) set(key, value string, ttl time.Duration, on ...int) {
	ns.t.Helper()
	for _, i := range on {
		require.NoError(ns.t, ns.direct[i].Set(ctx, key, value, ttl).Err())
	}
}

// kill ends a node for good.
func (ns *nodes) kill(i int) {
	ns.servers[i].Kill()
	ns.gone[i] = true
}

// requireClean checks that nothing is left but what goes by itself.
func (ns *nodes) requireClean(key string) {
	ns.t.Helper()
	for i, c := range ns.direct {
		if ns.gone[i] {
			continue
		}
		eventually(ns.t, fmt.Sprintf("node %d is clean", i+1), func() bool {
			n, err := c.Exists(ctx, key).Result()
			return err == nil && n == 0
		})
		keys, err := c.Keys(ctx, "*").Result()
		require.NoError(ns.t, err)
		for _, key := range keys {
			ttl, err := c.PTTL(ctx, key).Result() // -2: a vote that came late was there, and has been taken back
			require.NoError(ns.t, err)
			if ttl != -2 {
				require.Positive(ns.t, ttl, "%s would outlive its use", key)
			}
		}
	}
}

func TestQuorumLockIsOnAllNodesAndLeavesNothing(t *testing.T) {
	for _, n := range []int{3, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			ns := startNodes(t, n)
			var mu sync.Mutex
			var sent time.Time // the first request, no earlier than the vote began
			clients := ns.clients()
			clients[0].AddHook(pipelineHook(func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
				mu.Lock()
				sent = time.Now()
				mu.Unlock()
				return next(ctx, cmds)
			}))
			m := newQuorum(t, clients)
			for range 10 {
				before := time.Now()
				l := acquire(t, m, "key", time.Minute)
				mu.Lock()
				sent := sent
				mu.Unlock()
				if sent.After(before) { // else the other two were quicker
					require.False(t, l.ValidUntil().After(sent.Add(time.Minute-602*time.Millisecond)))
				}
				require.False(t, l.ValidUntil().Before(before.Add(time.Minute-602*time.Millisecond)))
				require.NoError(t, l.Unlock())
			}
			l := acquire(t, m, "key", time.Minute)
			eventually(t, "all nodes have it", func() bool { return ns.holders("key", l.Value()) == n })
			require.NoError(t, l.Extend(ctx, time.Hour))
			require.Greater(t, time.Until(l.ValidUntil()), 50*time.Minute)
			_, err := ns.manager().TryLock(ctx, "key", time.Minute)
			require.ErrorIs(t, err, redislock.ErrNotAcquired)
			require.NoError(t, l.Unlock())
			ns.requireClean("key")
		})
	}
}

// labelled is a client of another type, of which values cannot be compared.
type labelled struct {
	redis.UniversalClient
	labels []string
}

func TestQuorumThatCannotBeIsRefused(t *testing.T) {
	clients := func(addrs ...string) (all []redis.UniversalClient) {
		for _, addr := range addrs {
			c := redis.NewClient(&redis.Options{Addr: addr})
			t.Cleanup(func() { c.Close() })
			all = append(all, c)
		}
		return all
	}
	three := clients("a:1", "b:1", "c:1")
	var none *redis.Client
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"a:1"}})
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": "a:1"}})
	failover := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "m", SentinelAddrs: []string{"a:1"}})
	for _, c := range []redis.UniversalClient{cluster, ring, failover} {
		defer c.Close()
	}
	for name, c := range map[string]struct {
		clients []redis.UniversalClient
		opts    []redislock.Option
		text    string
	}{
		"none":           {nil, nil, "of 0 nodes"},
		"one":            {three[:1], nil, "of 1 nodes"},
		"even":           {clients("a:1", "b:1", "c:1", "d:1"), nil, "of 4 nodes"},
		"nil":            {[]redis.UniversalClient{three[0], nil, three[2]}, nil, "client 2 of 3 is nil"},
		"nil pointer":    {[]redis.UniversalClient{three[0], three[1], none}, nil, "client 3 of 3 is nil"},
		"same client":    {[]redis.UniversalClient{three[0], three[1], three[0]}, nil, "same server as client 1"},
		"same address":   {clients("a:1", "A.:1", "b:1"), nil, "same server as client 1"},
		"same loopback":  {clients("localhost:1", "b:1", "127.0.0.1:1"), nil, "same server as client 1"},
		"same loopback6": {clients("b:1", "[::1]:1", ":1"), nil, "same server as client 2"},
		"cluster":        {[]redis.UniversalClient{three[0], three[1], cluster}, nil, "client 3 of 3 is of a cluster"},
		"ring":           {[]redis.UniversalClient{three[0], three[1], ring}, nil, "*redis.Ring"},
		"hidden ring":    {[]redis.UniversalClient{three[0], three[1], labelled{ring, nil}}, nil, "Ring"},
		"failover":       {[]redis.UniversalClient{three[0], three[1], failover}, nil, "Sentinel"},
		"replicas":       {three, []redislock.Option{redislock.WithReplicas(1, time.Second)}, "replicas"},
		"nil option":     {three, []redislock.Option{nil}, "an option is nil"},
		"no guard":       {three, []redislock.Option{redislock.WithRestartGuard(0)}, "restart guard is 0s"},
		"long guard":     {three, []redislock.Option{redislock.WithRestartGuard(1e18)}, "restart guard is"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := redislock.NewQuorumManager(c.clients, c.opts...)
			require.ErrorIs(t, err, redislock.ErrInvalidArgument)
			require.ErrorContains(t, err, c.text)
		})
	}
	_, err := redislock.NewLockManager(three[0], redislock.WithRestartGuard(time.Minute))
	require.ErrorIs(t, err, redislock.ErrInvalidArgument)

	m, err := redislock.NewQuorumManager(clients("h:1", "h:2", "[::1]:1"), redislock.WithRestartGuard(time.Minute))
	require.NoError(t, err, "different servers")
	defer m.Close()
	require.NotPanics(t, func() {
		wrapped, err := redislock.NewQuorumManager([]redis.UniversalClient{labelled{three[0], nil}, labelled{three[1], nil}, labelled{three[2], nil}})
		require.NoError(t, err, "clients that cannot be compared")
		defer wrapped.Close()
	})
	for _, ttl := range []time.Duration{4 * time.Millisecond, time.Minute + time.Millisecond} {
		_, err = m.TryLock(ctx, "key", ttl)
		require.ErrorIs(t, err, redislock.ErrInvalidArgument, ttl)
	}
}

// A minority may be killed, frozen, or behind a black hole, before or during a
// lock's life, and nobody waits for it. With redsync and one of three frozen, Lock
// takes the client's read time-out: 5 s of an 8 s lease.
func TestQuorumOutlivesAMinority(t *testing.T) {
	for _, n := range []int{3, 5} {
		for name, hurt := range map[string]func(*redistest.Server){
			"killed": (*redistest.Server).Kill,
			"frozen": (*redistest.Server).Freeze,
		} {
			t.Run(fmt.Sprint(n, name), func(t *testing.T) {
				ns := startNodes(t, n)
				m := newQuorum(t, ns.clients(patientClient))
				held := acquire(t, m, "held", time.Minute)
				for _, s := range ns.servers[:n/2] {
					hurt(s)
					if name == "frozen" {
						defer s.Thaw()
					}
				}
				require.NoError(t, held.Extend(ctx, 2*time.Minute))
				require.Greater(t, time.Until(held.ValidUntil()), 100*time.Second)
				for range 3 {
					l := acquire(t, m, "key", time.Minute)
					require.Less(t, l.Wait().Waited, clientsPatience/2)
					next := m.Lock(ctx, "key", time.Minute)
					_, err := m.TryLock(ctx, "key", time.Minute)
					require.ErrorIs(t, err, redislock.ErrNotAcquired)
					require.NoError(t, l.Unlock())
					serve(t, next)
					require.Less(t, next.Wait().Waited, clientsPatience/2)
				}
				require.NoError(t, held.Unlock())
			})
		}
	}
}

func TestQuorumBehindABlackHole(t *testing.T) {
	ns := startNodes(t, 3)
	proxy := redistest.StartProxy(t, ns.servers[0].Addr)
	m := newQuorum(t, ns.clients(func(node int, o *redis.Options) {
		if node == 0 {
			o.Addr = proxy.Addr
			o.ReadTimeout = clientsPatience
		}
	}))
	l := acquire(t, m, "key", time.Minute)
	eventually(t, "all nodes have it", func() bool { return ns.holders("key", l.Value()) == 3 })
	proxy.Silent.Store(true)
	require.NoError(t, l.Extend(ctx, time.Hour))
	require.NoError(t, l.Unlock())
	for range 5 {
		l := acquire(t, m, "key", time.Minute)
		require.Less(t, l.Wait().Waited, clientsPatience/2)
		require.NoError(t, l.Unlock())
	}
	proxy.Silent.Store(false)
	proxy.Cut()
	ns.requireClean("key") // the release of the first lock still comes to the node
}

// Without a majority nobody gets the lock, and a fresh call says why soon; one
// that knows the key to be taken goes on, and gets it when the nodes are back.
func TestQuorumWithoutAMajority(t *testing.T) {
	ns := startNodes(t, 3)
	m := ns.manager()
	holder := acquire(t, m, "held", time.Minute)
	waiter := m.Lock(ctx, "held", time.Minute)
	eventually(t, "the waiter has been refused", func() bool { return m.Hears("held") == 3 })
	ns.servers[0].Kill()
	ns.servers[1].Kill()

	r := soon(t, m.Lock(ctx, "key", time.Minute))
	require.ErrorContains(t, r.Err, "1 of 3 nodes answered")
	require.ErrorContains(t, r.Err, "connection refused")
	_, err := m.TryLock(ctx, "key", time.Minute)
	require.ErrorContains(t, err, "1 of 3 nodes answered")
	require.NotErrorIs(t, err, redislock.ErrNotAcquired)
	err = holder.Extend(ctx, time.Minute)
	require.ErrorContains(t, err, "1 of 3 nodes answered")
	require.NotErrorIs(t, err, redislock.ErrNotHeld)
	require.NoError(t, holder.Err(), "the lease is not over")
	require.Error(t, holder.Unlock())

	ns.servers[0].Run()
	ns.servers[1].Run()
	serve(t, waiter)
	ns.requireClean("held")
	ns.requireClean("key")
}

func TestQuorumHasFrozen(t *testing.T) {
	ns := startNodes(t, 3)
	m := newQuorum(t, ns.clients(patientClient))
	t.Cleanup(ns.servers[0].Thaw)
	t.Cleanup(ns.servers[1].Thaw)
	var l *redislock.Lock
	withShortLease(t, func(ttl time.Duration) (ok bool) {
		l, ok = acquireShort(t, m, "held", 5*ttl)
		return ok
	})
	done, stalls := l.Done(), noteStalls(t)
	ns.servers[0].Freeze()
	ns.servers[1].Freeze()
	receive(t, done) // although Redis does not tell
	require.LessOrEqual(t, time.Since(l.ValidUntil()), stalls.allowance(), "told late")
	_, err := m.TryLock(ctx, "key", time.Minute)
	require.Error(t, err)
	require.Regexp(t, "[01] of 3 nodes answered", err.Error())
	ns.servers[0].Thaw()
	ns.servers[1].Thaw()
	eventually(t, "it works again", func() bool {
		l, err := m.TryLock(ctx, "key", time.Minute)
		return err == nil && l.Unlock() == nil
	})
	ns.requireClean("key")
}

// A node that was frozen while the lock was acquired hears of the release when it
// comes back, after the claim.
func TestQuorumReleaseReachesANodeThatWasFrozen(t *testing.T) {
	for _, outcome := range []string{"released", "cancelled"} {
		t.Run(outcome, func(t *testing.T) {
			ns := startNodes(t, 3)
			m := newQuorum(t, ns.clients(func(_ int, o *redis.Options) { o.ReadTimeout = 20 * time.Second }))
			l := acquire(t, m, "other", time.Minute) // so that all are connected
			eventually(t, "all nodes have it", func() bool { return ns.holders("other", l.Value()) == 3 })
			require.NoError(t, l.Unlock())
			ns.servers[2].Freeze()
			if outcome == "cancelled" {
				ns.set("key", "foreign", time.Minute, 0, 1)
				short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
				defer cancel()
				require.ErrorIs(t, soon(t, m.Lock(short, "key", time.Minute)).Err, context.DeadlineExceeded)
				require.NoError(t, ns.direct[0].Del(ctx, "key").Err())
				require.NoError(t, ns.direct[1].Del(ctx, "key").Err())
			} else {
				require.NoError(t, acquire(t, m, "key", time.Minute).Unlock())
			}
			ns.servers[2].Thaw()
			// All that was sent is answered, and all that had to follow has been sent.
			eventually(t, "nothing is under way", m.Idle)
			require.Zero(t, ns.direct[2].Exists(ctx, "key").Val(), "the claim is left")
		})
	}
}

// While a node hangs, what is kept for it does not grow with what is done
// meanwhile.
func TestQuorumNothingPilesUpForANodeThatHangs(t *testing.T) {
	ns := startNodes(t, 3)
	m := newQuorum(t, ns.clients(func(_ int, o *redis.Options) { o.ReadTimeout = 8 * time.Second }))
	require.NoError(t, acquire(t, m, "key", time.Minute).Unlock())
	ns.servers[2].Freeze()
	l := acquire(t, m, "key", time.Minute)
	eventually(t, "the node is known to hang", func() bool { return m.Away() == 1 })
	require.NoError(t, l.Unlock())
	most := 0
	for i := range 300 {
		l := acquire(t, m, fmt.Sprint("key", i%7), time.Minute)
		require.NoError(t, l.Extend(ctx, 2*time.Minute))
		require.NoError(t, l.Unlock())
		most = max(most, m.Requests())
	}
	t.Logf("at most %d requests were kept", most)
	require.Less(t, most, 50)
	require.Less(t, m.Remembered(), 50)
	ns.servers[2].Thaw()
	eventually(t, "nothing is under way", m.Idle)
	for i := range 7 {
		ns.requireClean(fmt.Sprint("key", i))
	}
}

// Two managers have a node each, and the third is gone: in node-redlock neither
// ever gets the lock.
func TestQuorumTieIsSettled(t *testing.T) {
	ns := startNodes(t, 3)
	ns.kill(2)
	m := ns.manager()
	ns.set("key", "foreign", time.Minute, 1)
	_, err := m.TryLock(ctx, "key", time.Minute)
	require.ErrorIs(t, err, redislock.ErrNotAcquired)
	require.NoError(t, ns.direct[1].PExpire(ctx, "key", 300*time.Millisecond).Err())
	require.NoError(t, acquire(t, m, "key", time.Minute).Unlock(), "when the other's key has gone")

	var wg sync.WaitGroup
	for range 4 { // all at once
		m := ns.manager()
		wg.Go(func() {
			for range 5 {
				l := m.Lock(ctx, "key", time.Minute)
				if r := l.Wait(); r.Err != nil {
					t.Error(r.Err)
				} else if err := l.Unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	finish(t, &wg)
	ns.requireClean("key")
}

// What a minority has of a value is somebody else's, unless an attempt of one's own may
// have put it there: two processes may go by the same value. And it is compared whole.
func TestQuorumMinorityOfTheSameValueIsAnothers(t *testing.T) {
	ns := startNodes(t, 3)
	ns.servers[2].Kill()
	m := ns.manager()
	ns.set("key", "worker-1", time.Minute, 0)
	_, err := m.TryLock(ctx, "key", time.Minute, redislock.WithValue("worker-1"))
	require.ErrorIs(t, err, redislock.ErrNotAcquired)
	require.NoError(t, ns.direct[0].Del(ctx, "key").Err())
	eventually(t, "what the attempt got is given back", func() bool { return ns.holders("key", "worker-1") == 0 })
	l, err := m.TryLock(ctx, "key", time.Minute, redislock.WithValue("worker-1"))
	require.NoError(t, err)
	require.NoError(t, l.Unlock())

	ns.set("key", "worker-10", time.Minute, 0, 1)
	_, err = m.TryLock(ctx, "key", time.Minute, redislock.WithValue("worker-1"))
	require.ErrorIs(t, err, redislock.ErrNotAcquired)
	require.Equal(t, 2, ns.holders("key", "worker-10"))
}

// An acquisition that is decided after its lease is none: node-redlock returned a
// lock that had expired 419 ms before.
func TestQuorumAcquisitionThatIsTooLate(t *testing.T) {
	ns := startNodes(t, 3)
	const ttl = 100 * time.Millisecond
	var slow atomic.Bool
	clients := ns.clients()
	for _, c := range clients {
		c.AddHook(pipelineHook(func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
			err := next(ctx, cmds)
			if slow.Load() {
				time.Sleep(ttl) // the answers are on their way for as long as the lease lasts
			}
			return err
		}))
	}
	m := newQuorum(t, clients)
	require.NoError(t, acquire(t, m, "key", ttl).Unlock())
	slow.Store(true)
	r := soon(t, m.Lock(ctx, "key", ttl))
	require.Error(t, r.Err)
	require.Zero(t, r.Token)
	slow.Store(false)
	require.NoError(t, acquire(t, m, "key", time.Minute).Unlock())
	ns.requireClean("key")
}

// A majority holds the lock, whatever became of it elsewhere; without one it is
// lost.
func TestQuorumExtendsByMajority(t *testing.T) {
	ns := startNodes(t, 3)
	m := ns.manager()
	l := acquire(t, m, "key", time.Minute, redislock.WithAutoRenew(time.Hour))
	eventually(t, "all nodes have it", func() bool { return ns.holders("key", l.Value()) == 3 })
	ns.set("key", "foreign", time.Minute, 1)
	require.NoError(t, l.Extend(ctx, time.Hour))
	require.Greater(t, ns.direct[0].PTTL(ctx, "key").Val(), 50*time.Minute)
	require.LessOrEqual(t, ns.direct[1].PTTL(ctx, "key").Val(), time.Minute)
	require.NoError(t, ns.direct[0].Del(ctx, "key").Err())
	err := l.Extend(ctx, 2*time.Hour)
	require.ErrorIs(t, err, redislock.ErrNotHeld)
	require.ErrorIs(t, err, redislock.ErrLost)
	require.True(t, closed(l.Done()))
	require.ErrorIs(t, l.Unlock(), redislock.ErrLost)
	eventually(t, "released where it was left", func() bool { return ns.direct[2].Exists(ctx, "key").Val() == 0 })
	require.Equal(t, "foreign", ns.direct[1].Get(ctx, "key").Val())

	require.NoError(t, ns.direct[1].Del(ctx, "key").Err())
	l = acquire(t, m, "key", time.Minute)
	eventually(t, "all nodes have it", func() bool { return ns.holders("key", l.Value()) == 3 })
	require.NoError(t, ns.direct[0].Del(ctx, "key").Err())
	require.NoError(t, ns.direct[2].Del(ctx, "key").Err())
	require.ErrorIs(t, l.Unlock(), redislock.ErrLost)
	ns.requireClean("key")

	l = acquire(t, m, "key", time.Minute)
	eventually(t, "all nodes have it", func() bool { return ns.holders("key", l.Value()) == 3 })
	confirmed := l.ValidUntil()
	ns.servers[0].Freeze()
	ns.servers[1].Freeze()
	require.Error(t, l.Extend(ctx, time.Hour), "one node is none")
	require.Equal(t, confirmed, l.ValidUntil())
	ns.servers[0].Thaw()
	ns.servers[1].Thaw()
	require.NoError(t, l.Unlock())
}

func TestQuorumRenewsWithOneNodeGone(t *testing.T) {
	ns := startNodes(t, 3)
	m := ns.manager()
	const ttl = 600 * time.Millisecond
	l := acquire(t, m, "key", ttl, redislock.WithAutoRenew(time.Hour))
	ns.servers[2].Kill()
	first := l.ValidUntil()
	eventually(t, "renewed twice", func() bool { return l.ValidUntil().After(first.Add(ttl / 2)) })
	require.NoError(t, l.Err())
	ns.servers[1].Kill()
	<-l.Done()
	require.ErrorIs(t, l.Err(), redislock.ErrLost)
	require.Error(t, l.Unlock())
	ns.servers[1].Run()
	ns.servers[2].Run()
}

// A plain Redlock in any language: SET NX PX on all nodes.
func TestQuorumExcludesAPlainRedlock(t *testing.T) {
	ns := startNodes(t, 3)
	m := ns.manager()
	l := acquire(t, m, "key", time.Minute)
	eventually(t, "all nodes have it", func() bool { return ns.holders("key", l.Value()) == 3 })
	for _, c := range ns.direct {
		require.False(t, c.SetNX(ctx, "key", "foreign", time.Minute).Val())
	}
	require.NoError(t, l.Unlock())
	ns.requireClean("key")
	ns.set("key", "foreign", time.Minute, 0, 2)
	waiter := m.Lock(ctx, "key", time.Minute)
	_, err := m.TryLock(ctx, "key", time.Minute)
	require.ErrorIs(t, err, redislock.ErrNotAcquired)
	eventually(t, "the waiter hears events", func() bool { return m.Hears("key") == 3 })
	for _, node := range []int{0, 2} { // on the other one, the waiter may have the key already
		require.NoError(t, ns.direct[node].Del(ctx, "key").Err())
	}
	serve(t, waiter)
	ns.requireClean("key")
}

// Whoever waits gets the lock within a second of its being free, also if nothing
// tells.
func TestQuorumKeyThatIsFreedInSilence(t *testing.T) {
	for name, opts := range map[string][]redislock.Option{
		"events":    nil,
		"no events": {redislock.WithKeyspaceEvents(redislock.KeyspaceOff)},
	} {
		t.Run(name, func(t *testing.T) {
			ns := startNodes(t, 3)
			ns.set("key", "foreign", time.Hour, 0, 1, 2)
			l := ns.manager(opts...).Lock(ctx, "key", time.Minute)
			for i, c := range ns.direct {
				eventually(t, "refused", func() bool {
					return ns.servers[i].Stat(c, "total_commands_processed") > 2
				})
				require.NoError(t, c.FlushAll(ctx).Err()) // of which no event tells
			}
			require.NoError(t, soon(t, l).Err)
			require.NoError(t, l.Unlock())
		})
	}
}

func TestQuorumFailsWithWhatTheNodesSay(t *testing.T) {
	ns := startNodes(t, 3)
	for _, c := range ns.direct {
		require.NoError(t, c.RPush(ctx, "key", "not a lock").Err())
	}
	_, err := ns.manager().TryLock(ctx, "key", time.Minute)
	require.ErrorContains(t, err, "WRONGTYPE")
	var answer redis.Error
	require.True(t, errors.As(err, &answer))
}
