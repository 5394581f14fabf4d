package redislock_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
)

func TestQuorumServesOneManagersCallersInTheirOrder(t *testing.T) {
	ns := startNodes(t, 3)
	m := ns.manager()
	holder := acquire(t, m, "key", time.Minute)
	served := &turns{t: t}
	for i := range 50 {
		served.add(i, m.Lock(ctx, "key", time.Minute))
	}
	require.NoError(t, holder.Unlock())
	served.requireInOrder()
	ns.requireClean("key")
}

// Several managers with many callers each, with all nodes and with one gone: at
// most one holder at a time, tokens that rise, and nobody who starves.
func TestQuorumManagersExcludeEachOther(t *testing.T) {
	for name, hurt := range map[string]func(*nodes){
		"all nodes": func(*nodes) {},
		"one gone":  func(ns *nodes) { ns.kill(1) },
		"one frozen": func(ns *nodes) {
			ns.servers[1].Freeze()
			ns.t.Cleanup(ns.servers[1].Thaw)
		},
	} {
		t.Run(name, func(t *testing.T) {
			const managers, callers, rounds = 3, 4, 8
			ns := startNodes(t, 3)
			var all []*redislock.LockManager
			for range managers {
				all = append(all, ns.manager())
			}
			hurt(ns)
			var inside atomic.Int32
			var last atomic.Int64
			var wg sync.WaitGroup
			for _, m := range all {
				for range callers {
					wg.Go(func() {
						for range rounds {
							l := m.Lock(ctx, "key", 10*time.Second)
							r := l.Wait()
							if r.Err != nil {
								t.Error(r.Err)
								return
							}
							if inside.Add(1) != 1 {
								t.Error("two holders at once")
							}
							if last.Swap(r.Token) >= r.Token {
								t.Error("token does not rise")
							}
							inside.Add(-1)
							if err := l.Unlock(); err != nil {
								t.Error(err)
							}
						}
					})
				}
			}
			finish(t, &wg)
			if name == "one frozen" {
				ns.servers[1].Thaw()
			}
			eventually(t, "nothing is left", func() bool {
				for i, c := range ns.direct {
					if !ns.gone[i] && c.Exists(ctx, "key").Val() != 0 {
						return false
					}
				}
				return true
			})
		})
	}
}

// A process that takes the lock again and again does not keep others from it.
func TestQuorumNobodyStarves(t *testing.T) {
	ns := startNodes(t, 3)
	greedy, modest := ns.manager(), ns.manager()
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for !stop.Load() {
				l := greedy.Lock(ctx, "key", time.Minute)
				if r := l.Wait(); r.Err != nil {
					t.Error(r.Err)
				} else if err := l.Unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 10 {
		serve(t, modest.Lock(ctx, "key", time.Minute))
	}
	stop.Store(true)
	finish(t, &wg)
}

// Tokens rise over the restart of each node in turn, without its keys, and over the
// loss of all.
func TestQuorumTokensRiseOverRestarts(t *testing.T) {
	ns := startNodes(t, 3)
	var last int64
	rises := func() {
		t.Helper()
		for range 3 { // a manager that knows nothing of the others
			l := acquire(t, ns.manager(), "key", time.Minute)
			require.Greater(t, l.Token(), last)
			last = l.Token()
			require.NoError(t, l.Unlock())
		}
	}
	rises()
	for _, s := range ns.servers {
		s.Kill()
		rises()
		s.Run()
		rises()
	}
	for _, c := range ns.direct {
		require.NoError(t, c.FlushAll(ctx).Err())
	}
	rises()
}

// Nodes that do not agree on a token are brought to agree: the next holder, by
// whatever majority, has a higher one.
func TestQuorumTokenIsConfirmed(t *testing.T) {
	ns := startNodes(t, 5)
	far := time.Now().Add(time.Hour).UnixMicro()
	for i, ahead := range []int64{0, 1, 2, 3, 4} {
		require.NoError(t, ns.direct[i].Set(ctx, redislock.FenceKey, far+ahead, 0).Err())
	}
	var last int64
	for i := range 10 {
		m := ns.manager()
		// Two other nodes are behind each time, and say yes to whatever they are asked.
		for _, node := range []int{i % 5, (i + 1) % 5} {
			ns.set("key", "foreign", time.Minute, node)
		}
		l := acquire(t, m, "key", time.Minute)
		require.Greater(t, l.Token(), last)
		require.Greater(t, l.Token(), far)
		last = l.Token()
		atLeast := 0
		for _, c := range ns.direct {
			if n, err := c.Get(ctx, redislock.FenceKey).Int64(); err == nil && n >= last {
				atLeast++
			}
		}
		require.GreaterOrEqual(t, atLeast, 3, "nodes that have the token")
		require.NoError(t, l.Unlock())
		for _, c := range ns.direct {
			require.NoError(t, c.Del(ctx, "key").Err())
		}
	}
}

// A node that has lost its fence takes nothing below its clock for the next token,
// whatever is proposed.
func TestQuorumLostFenceBeginsAtTheClock(t *testing.T) {
	client := startNodes(t, 1).direct[0]
	vote := redis.NewScript(redislock.ScriptText("vote.lua"))
	for _, c := range []struct {
		fence, proposed, least time.Duration // against the clock
	}{
		{0, -5 * time.Second, 0},
		{-6 * time.Second, -5 * time.Second, -5 * time.Second},
		{-30 * time.Second, -20 * time.Second, 0},
		{time.Hour, 0, time.Hour},
	} {
		require.NoError(t, client.FlushAll(ctx).Err())
		now, err := client.Time(ctx).Result()
		require.NoError(t, err)
		at := func(d time.Duration) int64 { return now.Add(d).UnixMicro() }
		if c.fence != 0 {
			require.NoError(t, client.Set(ctx, redislock.FenceKey, at(c.fence), 0).Err())
		}
		reply, err := vote.Run(ctx, client, []string{"key", redislock.FenceKey, "rival", "poll"}, "value", 1000, at(c.proposed), 0, "", "").Slice()
		require.NoError(t, err)
		require.GreaterOrEqual(t, reply[3], at(c.least), c)
		if c.least < 0 {
			require.Equal(t, at(c.proposed), reply[3], "what is near enough is agreed to")
		}
	}
}

// Where the nodes cannot be brought to agree, the lock is not had.
func TestQuorumTokenThatCannotBeConfirmed(t *testing.T) {
	ns := startNodes(t, 3)
	far := time.Now().Add(time.Hour).UnixMicro()
	for i, c := range ns.direct {
		require.NoError(t, c.Set(ctx, redislock.FenceKey, far+int64(i), 0).Err())
	}
	text := redislock.ScriptText("confirm.lua")
	var confirms atomic.Int32
	clients := ns.clients()
	for _, c := range clients {
		c.AddHook(pipelineHook(func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
			for _, cmd := range cmds {
				if cmd.Args()[1] == text {
					confirms.Add(1)
					cmd.SetErr(io.EOF)
					return io.EOF
				}
			}
			return next(ctx, cmds)
		}))
	}
	l := acquire(t, newQuorum(t, clients), "key", time.Minute)
	require.Positive(t, confirms.Load())
	agreed := 0
	for _, c := range ns.direct {
		if n, err := c.Get(ctx, redislock.FenceKey).Int64(); err == nil && n >= l.Token() {
			agreed++
		}
	}
	require.GreaterOrEqual(t, agreed, 2, "nodes that have the token %d", l.Token())
	require.NoError(t, l.Unlock())
}

// Without the guard a node that was restarted empty helps a second holder to a
// majority; with it, it does not vote until the first one's lease is over.
func TestQuorumRestartGuard(t *testing.T) {
	const longest = 2 * time.Second
	ns := startNodes(t, 3)
	guarded := ns.manager(redislock.WithRestartGuard(longest))
	_, err := guarded.TryLock(ctx, "key", longest)
	require.ErrorContains(t, err, "0 of 3 nodes answered")
	require.ErrorContains(t, err, "no vote before 2s")
	for _, c := range ns.direct {
		require.Zero(t, c.Exists(ctx, "key").Val())
	}
	eventually(t, "the nodes are old enough", func() bool {
		l, err := guarded.TryLock(ctx, "key", longest)
		return err == nil && l.Unlock() == nil
	})

	open := ns.manager()
	ns.kill(2)
	for _, restarted := range []struct {
		other *redislock.LockManager
		gets  bool
	}{{guarded, false}, {open, true}} {
		l := acquire(t, open, "key", time.Minute) // so that no slow restart outlasts it
		eventually(t, "both have it", func() bool { return ns.holders("key", l.Value()) == 2 })
		ns.servers[0].Kill()
		ns.servers[0].Run()
		_, err := restarted.other.TryLock(ctx, "key", longest)
		require.Error(t, err, "the other live node has it")
		// Then that one is gone, and the one that had no vote is back, empty.
		ns.servers[1].Kill()
		ns.servers[1].Run()
		other, err := restarted.other.TryLock(ctx, "key", longest)
		require.Equal(t, restarted.gets, err == nil, "%v", err)
		if err == nil {
			require.Greater(t, other.Token(), l.Token())
			require.NoError(t, other.Unlock())
		}
		_ = l.Unlock()
		if !restarted.gets {
			eventually(t, "the nodes are old enough again", func() bool {
				l, err := guarded.TryLock(ctx, "key", longest)
				return err == nil && l.Unlock() == nil
			})
		}
	}
}

// What a release costs the servers while many managers wait for the key, and what
// waiting itself costs.
func TestQuorumWaitersAreNoHerd(t *testing.T) {
	const managers, releases = 8, 8
	ns := startNodes(t, 3)
	commands := func() (n int64) {
		for i, s := range ns.servers {
			n += s.Stat(ns.direct[i], "total_commands_processed")
		}
		return n
	}
	holder := acquire(t, ns.manager(), "key", time.Minute)
	var all []*redislock.LockManager
	locks := make(chan *redislock.Lock, managers)
	for range managers {
		m := ns.manager()
		all = append(all, m)
		l := m.Lock(ctx, "key", time.Minute)
		go func() {
			if r := l.Wait(); r.Err != nil {
				t.Error(r.Err)
			}
			locks <- l
		}()
	}
	for _, m := range all {
		eventually(t, "all hear events", func() bool { return m.Hears("key") == 3 })
	}
	before, began := commands(), time.Now()
	time.Sleep(2 * time.Second) // what is measured is what nobody announces
	idle := float64(commands()-before-9) / time.Since(began).Seconds()
	require.Less(t, idle, float64(managers*3*8), "commands a second while %d managers wait", managers)

	before = commands()
	for range releases {
		require.NoError(t, holder.Unlock())
		holder = receive(t, locks)
	}
	t.Logf("%d managers wait: %.0f commands a second on 3 nodes", managers, idle)
	each := float64(commands()-before) / releases
	t.Logf("a release and the next acquisition: %.0f commands", each)
	require.Less(t, each, float64(40+managers*3*5*3/2), "each manager votes about once")
	require.NoError(t, holder.Unlock())
}

// A manager that hears of no release gets as many locks as each of those that do,
// however long they are held: in fake time, where nothing but the random delays
// decides. The locks go on until everybody has had more than a seventh of them, where a
// quarter is his share, or until there have been so many that chance alone leaves nobody
// so far behind, not once in a billion runs.
func TestQuorumWhoHearsOfNoReleaseHasItsShare(t *testing.T) {
	off := redislock.WithKeyspaceEvents(redislock.KeyspaceOff)
	for name, c := range map[string]struct {
		hold time.Duration
		deaf int // of four managers
	}{
		"not held":          {0, 1},
		"held for a while":  {20 * time.Millisecond, 1},
		"held for long":     {300 * time.Millisecond, 1},
		"most hear of none": {20 * time.Millisecond, 3},
	} {
		t.Run(name, func(t *testing.T) {
			const managers, fewest, most = 4, 200, 500
			synctest.Test(t, func(t *testing.T) {
				ns := startBubbleNodes(t)
				defer ns.close()
				counts := make([]int, managers)
				total, done := 0, false
				enough := func(n int) bool { return n > total/7 }
				var mu sync.Mutex
				var wg sync.WaitGroup
				for i := range managers {
					var opts []redislock.Option
					if i < c.deaf {
						opts = append(opts, off)
					}
					m := ns.manager(opts...)
					for range 2 {
						wg.Go(func() {
							for {
								l := m.Lock(ctx, "key", time.Minute)
								if !assert.NoError(t, l.Wait().Err) {
									return
								}
								time.Sleep(c.hold)
								mu.Lock()
								if !done { // what follows is only of those who still wait
									counts[i]++
									total++
									done = total >= fewest && enough(slices.Min(counts)) || total >= most
								}
								last := done
								mu.Unlock()
								if !assert.NoError(t, l.Unlock()) || last {
									return
								}
							}
						})
					}
				}
				wg.Wait()
				t.Log(counts)
				for i, n := range counts {
					assert.True(t, enough(n), "manager %d has had %d of %d", i, n, total)
				}
			})
		})
	}
}

// A manager that hears of no release, and has another caller who waits while it holds,
// sees that others want the key: it does not go round among its own callers.
func TestQuorumWhoHearsOfNoReleaseKeepsNoKeyForHimself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := startBubbleNodes(t)
		defer ns.close()
		m := ns.manager(redislock.WithKeyspaceEvents(redislock.KeyspaceOff))
		var rounds atomic.Int64
		done := make(chan struct{})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for rounds.Load() < 500 && !closed(done) {
					l := m.Lock(ctx, "key", time.Minute)
					if !assert.NoError(t, l.Wait().Err) {
						return
					}
					time.Sleep(300 * time.Millisecond)
					assert.NoError(t, l.Unlock())
					rounds.Add(1)
				}
			})
		}
		for range 4 { // as chance may help some
			time.Sleep(3 * time.Second) // until those who came before are forgotten
			before := rounds.Load()
			l := ns.manager().Lock(ctx, "key", time.Minute)
			require.NoError(t, l.Wait().Err)
			require.Less(t, rounds.Load()-before, int64(10), "locks of others before the one who came had his")
			require.NoError(t, l.Unlock())
		}
		close(done)
		wg.Wait()
	})
}

// Those who hear of releases are slowed down for the sake of one who does not, and not
// while a subscription is only just being made.
func TestQuorumNobodyIsSlowedDownWhileSubscriptionsAreMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := startBubbleNodes(t)
		defer ns.close()
		slowed := func() bool {
			return slices.ContainsFunc(ns.servers[:], func(s *miniredis.Miniredis) bool { return s.Exists("redislock:poll:key") })
		}
		locks := []*redislock.Lock{ns.manager().Lock(ctx, "key", time.Minute)}
		require.NoError(t, locks[0].Wait().Err)
		for range 3 {
			locks = append(locks, ns.manager().Lock(ctx, "key", time.Minute))
		}
		time.Sleep(100 * time.Millisecond)
		require.False(t, slowed())
		locks = append(locks, ns.manager(redislock.WithKeyspaceEvents(redislock.KeyspaceOff)).Lock(ctx, "key", time.Minute))
		time.Sleep(100 * time.Millisecond)
		require.True(t, slowed(), "the key that says so has another name now")
		for _, l := range locks {
			go func() {
				if assert.NoError(t, l.Wait().Err) {
					assert.NoError(t, l.Unlock())
				}
			}()
		}
		for _, l := range locks {
			<-l.Done()
		}
	})
}

// A manager whose channels were forbidden for a while hears of releases afterwards.
func TestQuorumHearsEventsThatArePermittedLater(t *testing.T) {
	ns := startNodes(t, 3)
	for _, c := range ns.direct {
		require.NoError(t, c.Do(ctx, "acl", "setuser", "locker", "on", ">secret", "~*", "+@all", "resetchannels").Err())
	}
	var log logBuffer
	m := newQuorum(t, ns.clients(func(_ int, o *redis.Options) {
		o.Username, o.Password = "locker", "secret"
	}), redislock.WithLogger(log.logger()))
	ns.set("key", "foreign", time.Hour, 0, 1, 2)
	l := m.Lock(ctx, "key", time.Minute)
	refusals := func() int { return strings.Count(log.String(), "may not be subscribed to") }
	eventually(t, "the refusal is logged", func() bool { return refusals() > 0 })
	require.Zero(t, m.Hears("key"))
	for _, c := range ns.direct {
		require.NoError(t, c.Do(ctx, "acl", "setuser", "locker", "allchannels").Err())
	}
	eventually(t, "events are heard", func() bool { return m.Hears("key") == 3 })
	for _, c := range ns.direct {
		require.NoError(t, c.Del(ctx, "key").Err())
	}
	serve(t, l)
	require.Equal(t, 1, refusals(), log.String())
}

// Where nobody knows whether the flags are on, the first event tells, not that one may
// subscribe: else whoever hears nothing would ask once a second and wait for events.
func TestQuorumBelievesInEventsThatHaveCome(t *testing.T) {
	ns := startNodes(t, 3)
	for _, c := range ns.direct {
		require.NoError(t, c.Do(ctx, "acl", "setuser", "locker", "on", ">secret", "~*", "&*", "+@all", "-config").Err())
	}
	m := newQuorum(t, ns.clients(func(_ int, o *redis.Options) { o.Username, o.Password = "locker", "secret" }))
	ns.set("key", "foreign", time.Hour, 0, 1, 2)
	l := m.Lock(ctx, "key", time.Minute)
	for _, c := range ns.direct {
		eventually(t, "subscribed", func() bool { return c.PubSubNumSub(ctx, "__keyspace@0__:key").Val()["__keyspace@0__:key"] == 1 })
	}
	require.Zero(t, m.Hears("key"))
	for i, c := range ns.direct {
		require.NoError(t, c.ConfigSet(ctx, "notify-keyspace-events", "KEA").Err())
		eventually(t, "an event has come", func() bool {
			require.NoError(t, c.PExpire(ctx, "key", time.Hour).Err())
			return m.Hears("key") == i+1
		})
		require.NoError(t, c.Del(ctx, "key").Err())
	}
	serve(t, l)
}

// Nodes that are slow for half a second do not end a call that may wait, however short its
// TTL is; TryLock says how little time they had.
func TestQuorumShortTTLOutlivesSlowNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := startBubbleNodes(t)
		defer ns.close()
		m := ns.manager()
		const ttl = 50 * time.Millisecond
		require.NoError(t, acquire(t, m, "key", ttl).Unlock()) // so that all are connected
		ns.delay.Store(int64(2 * ttl))
		_, err := m.TryLock(ctx, "key", ttl)
		require.ErrorContains(t, err, "0 of 3 nodes answered within 10ms, as a ttl of 50ms wants it")
		require.NotErrorIs(t, err, redislock.ErrNotAcquired, "nobody said that it is taken")
		time.AfterFunc(500*time.Millisecond, func() { ns.delay.Store(0) })
		serve(t, m.Lock(ctx, "key", ttl))

		ns.delay.Store(int64(2 * ttl))
		began := time.Now()
		require.ErrorContains(t, soon(t, m.Lock(ctx, "key", ttl)).Err, "0 of 3 nodes answered")
		require.Less(t, time.Since(began), 2*time.Second)
		ns.delay.Store(0)
	})
}

// bubbleNodes are the nodes of a quorum in fake time. A request takes 0.2 ms there and
// 0.2 ms back.
type bubbleNodes struct {
	t        *testing.T
	servers  [3]*miniredis.Miniredis
	clients  []*redis.Client
	managers []*redislock.LockManager
	delay    atomic.Int64 // of all answers, in ns
}

func startBubbleNodes(t *testing.T) *bubbleNodes {
	ns := &bubbleNodes{t: t}
	for i := range ns.servers {
		ns.servers[i] = miniredis.NewMiniRedis()
		ns.servers[i].ClockTTL(true)
	}
	return ns
}

// manager returns one with clients of its own. miniredis has no keyspace events: who
// releases a key has them sent.
func (ns *bubbleNodes) manager(opts ...redislock.Option) *redislock.LockManager {
	text := redislock.ScriptText("release.lua")
	sha := redis.NewScript(text).Hash()
	var all []redis.UniversalClient
	for i, server := range ns.servers {
		b := &bubble{server: server}
		c := redis.NewClient(&redis.Options{
			Addr: fmt.Sprintf("127.0.0.1:%d", i+1),
			Dialer: func(context.Context, string, string) (net.Conn, error) {
				conn, err := server.Dial()
				if err != nil {
					return nil, err
				}
				return newBubbleConn(conn, b), nil
			},
		})
		c.AddHook(pipelineHook(func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
			time.Sleep(200 * time.Microsecond)
			err := next(ctx, cmds)
			for _, cmd := range cmds {
				args := cmd.Args()
				if script, ok := cmd.(interface{ Val() any }); ok && len(args) > 3 &&
					(args[1] == text || args[1] == sha) && script.Val() == int64(1) {
					server.Publish(fmt.Sprintf("__keyspace@0__:%v", args[3]), "del")
				}
			}
			time.Sleep(200*time.Microsecond + time.Duration(ns.delay.Load()))
			return err
		}))
		ns.clients = append(ns.clients, c)
		all = append(all, c)
	}
	m, err := redislock.NewQuorumManager(all, opts...)
	require.NoError(ns.t, err)
	ns.managers = append(ns.managers, m)
	return m
}

func (ns *bubbleNodes) close() {
	for _, m := range ns.managers {
		assert.NoError(ns.t, m.Close())
	}
	for _, c := range ns.clients {
		assert.NoError(ns.t, c.Close())
	}
	for _, s := range ns.servers {
		s.Close()
	}
}
