package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// What passes, and what does not: who waits in the line outlives what may pass, a
// release goes on until the lease ends, a call from the start is told after a while;
// and nobody waits for what cannot pass.

// An answer is an error as Redis answers it.
type answer string

func (e answer) Error() string { return string(e) }
func (answer) RedisError()     {}

// A refusal is a hook of a client: while it is set, scripts are answered so, and
// plain commands as Redis would.
type refusal struct{ scripts, plain atomic.Pointer[answer] }

func (r *refusal) set(scripts, plain answer) {
	r.scripts.Store(&scripts)
	r.plain.Store(&plain)
}

func (r *refusal) end() {
	r.scripts.Store(nil)
	r.plain.Store(nil)
}

func (r *refusal) pass(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
	scripts, plain := r.scripts.Load(), r.plain.Load()
	if isGreeting(cmds) || scripts == nil || plain == nil {
		return next(ctx, cmds)
	}
	for _, cmd := range cmds {
		switch cmd.Name() {
		case "eval", "evalsha":
			cmd.SetErr(*scripts)
		default:
			cmd.SetErr(*plain)
		}
	}
	return cmds[0].Err()
}

func newRefusal(b *bubble) *refusal {
	r := new(refusal)
	b.client.AddHook(pipelineHook(r.pass))
	return r
}

// Redis 6.2 wraps what a command in a script is refused with. That changes nothing for
// a waiter, for a release and for an extension.
func TestRefusedByRedis62(t *testing.T) {
	const raised = "ERR Error running script (call to f_c664a3bf70bd1d45c4284ffebb65a6f2299bfc9f): " +
		"@user_script:58: @user_script: 58: -%s  "
	const returned = "@user_script: 31: -%s  "
	for _, refused := range []string{
		"READONLY You can't write against a read only replica.",
		"NOREPLICAS Not enough good replicas to write.",
		"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
		"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
	} {
		word, _, _ := strings.Cut(refused, " ")
		for name, form := range map[string]string{"raised": raised, "returned": returned, "as 7.0 does": "%s"} {
			t.Run(word+"/"+name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, b *bubble) {
					r := newRefusal(b)
					simple := acquire(t, b.manager, "simple", time.Minute)
					queued := acquire(t, b.manager, "queued", time.Minute)
					extended := acquire(t, b.manager, "extended", 10*time.Second)
					waiter := b.manager.Lock(ctx, "queued", time.Minute)
					synctest.Wait()

					r.set(answer(fmt.Sprintf(form, refused)), answer(refused))
					time.AfterFunc(3*time.Second, r.end)
					unlocked := make(chan error, 2)
					go func() { unlocked <- simple.Unlock() }()
					go func() { unlocked <- queued.Unlock() }()
					require.NoError(t, extended.Extend(ctx, time.Minute), "an extension")
					require.Greater(t, time.Until(extended.ValidUntil()), 50*time.Second)
					require.NoError(t, <-unlocked, "a release")
					require.NoError(t, <-unlocked, "a release")
					require.NoError(t, waiter.Wait().Err, "a waiter")
					require.NoError(t, waiter.Unlock())
					require.NoError(t, extended.Unlock())
					require.False(t, b.server.Exists("simple"))
				})
			})
		}
	}
}

// Under an address that leads to a read-only replica for ever, a call ends, and the log
// tells why it takes so long.
func TestEndpointThatIsReadOnly(t *testing.T) {
	const readOnly = "READONLY You can't write against a read only replica."
	inBubble(t, func(t *testing.T, b *bubble) {
		var log logBuffer
		m, err := redislock.NewLockManager(b.client, redislock.WithLogger(log.logger()))
		require.NoError(t, err)
		defer func() { require.NoError(t, m.Close()) }()
		r := newRefusal(b)
		r.set(readOnly, readOnly)
		bounded := func(most time.Duration, call func() error) {
			t.Helper()
			start := time.Now()
			err := call()
			require.ErrorContains(t, err, "READONLY")
			require.ErrorContains(t, err, "replica, which has not become a master")
			require.LessOrEqual(t, time.Since(start), most+500*time.Millisecond) // between two attempts
		}
		bounded(time.Second, func() error {
			_, err := m.TryLock(ctx, "key", time.Second)
			return err
		})
		require.Empty(t, log.String())
		bounded(5*time.Second, func() error {
			_, err := m.TryLock(ctx, "key", time.Hour)
			return err
		})
		bounded(10*time.Second, func() error { return m.Lock(ctx, "key", time.Hour).Wait().Err })
		require.Equal(t, 1, strings.Count(log.String(), "requests are not served"))
		require.Contains(t, log.String(), "READONLY")
		require.Contains(t, log.String(), "becomes a master")
	})
}

// One who stands in the line was there before it became one.
func TestWaiterOutlivesALongFailover(t *testing.T) {
	const readOnly = "READONLY You can't write against a read only replica."
	inBubble(t, func(t *testing.T, b *bubble) {
		holder := acquire(t, b.manager, "key", 10*time.Second)
		waiter := b.manager.Lock(ctx, "key", time.Minute)
		synctest.Wait()
		r := newRefusal(b)
		r.set(readOnly, readOnly)
		time.Sleep(time.Minute)
		require.ErrorIs(t, holder.Err(), redislock.ErrLost)
		r.end()
		require.NoError(t, waiter.Wait().Err)
		require.NoError(t, waiter.Unlock())
		_ = holder.Unlock()
	})
}

// The client is closed before the manager. That cannot pass: all end at once, with an
// error that says so.
func TestClientThatIsClosedEndsAll(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		var log logBuffer
		m, err := redislock.NewLockManager(b.client, redislock.WithLogger(log.logger()))
		require.NoError(t, err)
		held := acquire(t, m, "key", time.Hour)
		renewed := acquire(t, m, "renewed", 3*time.Second, redislock.WithAutoRenew(time.Hour))
		waiters := []*redislock.Lock{m.Lock(ctx, "key", time.Hour), m.Lock(ctx, "key", time.Hour), m.Lock(ctx, "renewed", time.Hour)}
		synctest.Wait()

		start := time.Now()
		require.NoError(t, b.client.Close())
		for _, l := range waiters {
			require.ErrorIs(t, l.Wait().Err, redis.ErrClosed)
		}
		require.Less(t, time.Since(start), 2*time.Second, "they have waited for a lease to end")
		_, err = m.TryLock(ctx, "other", time.Hour)
		require.ErrorIs(t, err, redis.ErrClosed)
		require.ErrorIs(t, m.Lock(ctx, "key", time.Hour).Wait().Err, redis.ErrClosed)
		require.ErrorIs(t, held.Unlock(), redis.ErrClosed)
		require.Less(t, time.Since(start), 2*time.Second)
		<-renewed.Done()
		require.ErrorIs(t, renewed.Err(), redislock.ErrLost)
		require.ErrorIs(t, renewed.Err(), redis.ErrClosed, "why it was not renewed")
		require.Less(t, time.Since(start), 4*time.Second)

		start = time.Now()
		require.NoError(t, m.Close())
		require.Zero(t, time.Since(start), "Close takes its time")
		synctest.Wait() // for those that are on their last instruction
		require.Equal(t, 1, strings.Count(log.String(), "client was closed"))
		require.NotContains(t, log.String(), "giving back")
		require.LessOrEqual(t, strings.Count(log.String(), "\n"), 6, log.String())

		b.client = redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}) // for the bubble's end
	})
}

// Those who wait notice it although nothing is to be sent for an hour.
func TestClosedClientIsNoticedByWhoWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		m, err := redislock.NewLockManager(b.client)
		require.NoError(t, err)
		held := acquire(t, m, "key", time.Hour)
		waiter := m.Lock(ctx, "key", time.Hour)
		synctest.Wait()
		start := time.Now()
		require.NoError(t, b.client.Close())
		require.ErrorIs(t, waiter.Wait().Err, redis.ErrClosed)
		require.Less(t, time.Since(start), 2*time.Second, "it has waited for the lease to end")
		require.ErrorIs(t, held.Unlock(), redis.ErrClosed)
		require.NoError(t, m.Close())

		b.client = redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}) // for the bubble's end
	})
}

// In a cluster the client closes the connections to a server that has left it, too.
// Only the cluster's client itself knows.
func TestClusterClientThatIsClosedEndsAll(t *testing.T) {
	c := redistest.StartCluster(t, 3, 0)
	client := c.Client(nil)
	m := newManager(t, client)
	holder := acquire(t, m, "key", time.Hour)
	node, err := client.MasterForKey(ctx, "key")
	require.NoError(t, err)
	waiter := m.Lock(ctx, "key", time.Hour)
	eventually(t, "stands in the line", func() bool { return client.ZCard(ctx, "redislock:queue:{key}").Val() == 1 })

	var closed atomic.Bool
	closed.Store(true)
	node.AddHook(pipelineHook(func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
		if !closed.Swap(false) {
			return next(ctx, cmds)
		}
		for _, cmd := range cmds {
			cmd.SetErr(redis.ErrClosed)
		}
		return redis.ErrClosed
	}))
	require.NoError(t, holder.Extend(ctx, 2*time.Hour), "to the server that has the key now")
	require.False(t, closed.Load())

	require.NoError(t, client.Close())
	require.ErrorIs(t, soon(t, waiter).Err, redis.ErrClosed)
	require.ErrorIs(t, holder.Unlock(), redis.ErrClosed)
}

// Of a quorum a majority is enough, and without one there is nothing to wait for.
func TestQuorumOfClientsThatAreClosed(t *testing.T) {
	ns := startNodes(t, 3)
	clients := ns.clients()
	m := newQuorum(t, clients)
	holder := acquire(t, m, "key", time.Hour)
	eventually(t, "all nodes have it", func() bool { return ns.holders("key", holder.Value()) == 3 })
	require.NoError(t, clients[0].Close())
	waiter := m.Lock(ctx, "key", time.Hour)
	require.NoError(t, holder.Unlock())
	require.NoError(t, soon(t, waiter).Err)
	next := m.Lock(ctx, "key", time.Hour)
	require.NoError(t, clients[1].Close())
	require.ErrorIs(t, soon(t, next).Err, redis.ErrClosed)
	require.ErrorIs(t, soon(t, m.Lock(ctx, "other", time.Hour)).Err, redis.ErrClosed)
	require.ErrorIs(t, waiter.Unlock(), redis.ErrClosed)
}

// Whatever hinders the client from setting up a connection, it is no answer to the
// request: not to a release, which goes on, nor to one who stands in the line; and
// calls that fail leave nothing.
func TestConnectionsThatCannotBeSetUp(t *testing.T) {
	for name, refused := range map[string]error{
		"password":           answer("WRONGPASS invalid username-password pair or user is disabled."),
		"no password":        answer("NOAUTH Authentication required."),
		"database":           answer("ERR DB index is out of range"),
		"permission":         answer("NOPERM User u has no permissions to run the 'select' command"),
		"no value":           redis.Nil,
		"a script":           answer("NOSCRIPT No matching script."),
		"another server":     answer("MOVED 1 127.0.0.1:1"),
		"denied by a client": errors.New("too many failures of late"),
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			var hindered atomic.Bool
			client := server.Client(func(o *redis.Options) {
				o.OnConnect = func(context.Context, *redis.Conn) error {
					if hindered.Load() {
						return refused
					}
					return nil
				}
			})
			admin := server.Client(nil)
			m := newManager(t, client)
			held := acquire(t, m, "key", time.Hour)
			waiter := m.Lock(ctx, "key", time.Hour)
			awaitWaiters(t, admin, "key", 1)

			hindered.Store(true)
			for _, of := range []string{"normal", "pubsub"} {
				require.NoError(t, admin.Do(ctx, "client", "kill", "type", of, "skipme", "yes").Err())
			}
			require.ErrorIs(t, held.Unlock(), refused)
			_, err := m.TryLock(ctx, "other", time.Hour)
			require.ErrorIs(t, err, refused)
			require.ErrorIs(t, soon(t, m.Lock(ctx, "other", time.Hour)).Err, refused)
			require.NoError(t, waiter.Err())

			hindered.Store(false)
			serve(t, waiter)
			requireClean(t, admin)
		})
	}
}

// The password changes, connections are renewed, and the application knows the new one
// later.
func TestPasswordThatChanges(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client(nil)
	require.NoError(t, admin.Do(ctx, "acl", "setuser", "locker", "on", ">old", "~*", "&*", "+@all").Err())
	var password atomic.Value
	password.Store("old")
	m := newManager(t, server.Client(func(o *redis.Options) {
		o.CredentialsProvider = func() (string, string) { return "locker", password.Load().(string) }
	}))
	held := acquire(t, m, "key", time.Hour)
	waiter := m.Lock(ctx, "key", time.Hour)
	awaitWaiters(t, admin, "key", 1)

	require.NoError(t, admin.Do(ctx, "acl", "setuser", "locker", "<old", ">new").Err())
	require.NoError(t, admin.Do(ctx, "client", "kill", "user", "locker").Err())
	require.ErrorContains(t, held.Unlock(), "WRONGPASS")
	_, err := m.TryLock(ctx, "other", time.Hour)
	require.ErrorContains(t, err, "WRONGPASS")
	require.NoError(t, waiter.Err())

	password.Store("new")
	serve(t, waiter)
	requireClean(t, admin)
}

// While a script runs for long, Redis answers everything with BUSY, the subscription's
// pings too. That is a sign of life: who stands in the line does not seem to have gone.
func TestBusyRedisDoesNotEndTheSubscription(t *testing.T) {
	for name, said := range map[string]string{
		"BUSY":                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
		"MISCONF":             "MISCONF Errors writing to the AOF file: No space left on device",
		"ping is not allowed": "NOPERM User u has no permissions to run the 'ping' command",
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				holder := acquire(t, b.manager, "key", time.Hour)
				waiter := b.manager.Lock(ctx, "key", time.Hour)
				time.Sleep(time.Second) // all is subscribed to
				ear := b.ear.Load()
				var pings atomic.Int32
				b.server.Server().SetPreHook(func(c *server.Peer, command string, args ...string) bool {
					if command == "PING" {
						pings.Add(1)
						c.WriteError(said)
					}
					return command == "PING"
				})
				time.Sleep(time.Minute)
				require.Greater(t, pings.Load(), int32(10))
				b.server.Server().SetPreHook(nil)
				time.Sleep(time.Minute)
				require.Same(t, ear, b.ear.Load(), "it has subscribed anew")
				require.Equal(t, 1, b.server.PubSubNumSub("__keyspace@0__:key")["__keyspace@0__:key"])
				require.NoError(t, holder.Unlock())
				require.NoError(t, waiter.Wait().Err)
				require.NoError(t, waiter.Unlock())
			})
		})
	}
}

// A subscription that was refused with BUSY is asked for again.
func TestSubscriptionRefusedByABusyRedis(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		holder := acquire(t, b.manager, "key", time.Hour)
		waiter := b.manager.Lock(ctx, "key", time.Hour)
		synctest.Wait()
		b.server.SetError("BUSY Redis is busy running a script.")
		time.Sleep(5 * time.Second) // the line has stood still, and its key's events are asked for
		require.Zero(t, b.server.PubSubNumSub("__keyspace@0__:key")["__keyspace@0__:key"])
		b.server.SetError("")
		time.Sleep(time.Second)
		require.Equal(t, 1, b.server.PubSubNumSub("__keyspace@0__:key")["__keyspace@0__:key"])
		require.NoError(t, holder.Unlock())
		require.NoError(t, waiter.Wait().Err)
		require.NoError(t, waiter.Unlock())
	})
}

// Where WAIT is forbidden nobody ever knows of the replicas.
func TestReplicasThatCannotBeAskedAreAnError(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		m, err := redislock.NewLockManager(b.client, redislock.WithReplicas(1, time.Second))
		require.NoError(t, err)
		defer func() { require.NoError(t, m.Close()) }()
		b.client.AddHook(pipelineHook(func(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
			err := next(ctx, cmds)
			if last := cmds[len(cmds)-1]; last.Name() == "wait" {
				last.(interface{ SetVal(any) }).SetVal(nil)
				last.SetErr(answer("NOPERM User u has no permissions to run the 'wait' command"))
			}
			return err
		}))
		r := m.Lock(ctx, "key", time.Hour).Wait()
		require.ErrorIs(t, r.Err, redislock.ErrNotAcquired)
		require.ErrorContains(t, r.Err, "WAIT")
		synctest.Wait()
		require.False(t, b.server.Exists("key"))
	})
}
