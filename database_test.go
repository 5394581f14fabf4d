package redislock_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// metered is what programs do that count their commands: the client is not seen any more.
type metered struct{ redis.UniversalClient }

// The events of a key have the number of the database in their names, and the server is
// asked for it, as the client's options do not always tell.
func TestEventsAreOfTheDatabaseThatTheKeysAreIn(t *testing.T) {
	server := redistest.Start(t)
	inThree := server.Client(func(o *redis.Options) { o.DB = 3 })
	sentinels := redistest.StartSentinels(t, 0, 1)
	options := &redis.FailoverOptions{MasterName: sentinels.Name, SentinelAddrs: sentinels.Addrs(), DB: 3}
	other, byCluster := redis.NewFailoverClient(options), redis.NewFailoverClusterClient(options)
	t.Cleanup(func() {
		other.Close()
		byCluster.Close()
	})
	for name, clients := range map[string][2]redis.UniversalClient{
		"SELECT as it connects": {server.Client(func(o *redis.Options) {
			o.OnConnect = func(ctx context.Context, conn *redis.Conn) error { return conn.Select(ctx, 3).Err() }
		}), inThree},
		"wrapped":                  {metered{inThree}, inThree},
		"NewFailoverClusterClient": {byCluster, other},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, clients[0], redislock.WithKeyspaceEvents(redislock.KeyspaceRequired))
			require.NoError(t, clients[1].Set(ctx, "key", "another program's", time.Hour).Err())
			l := m.Lock(ctx, "key", time.Minute)
			eventually(t, "the key's events are heard", func() bool {
				return clients[1].Publish(ctx, "__keyspace@3__:key", "nothing").Val() == 1 && m.HasHeard("key")
			})
			require.NoError(t, clients[1].Del(ctx, "key").Err())
			serve(t, l)
		})
	}
}

// Where the server may not be asked and the client does not tell, nothing is guessed.
func TestRequiredEventsOfAnUnknownDatabase(t *testing.T) {
	server := redistest.Start(t)
	client := aclClient(t, server, append([]string{"+config|get", "+config|set", "+select"}, aclRules...))
	client.Options().OnConnect = func(ctx context.Context, conn *redis.Conn) error { return conn.Select(ctx, 3).Err() }
	_, err := redislock.NewLockManager(client, redislock.WithKeyspaceEvents(redislock.KeyspaceRequired))
	require.ErrorContains(t, err, "the number of the database cannot be told")
}

// Events of a key by the same name in another database tell nothing of this one. Where it
// cannot be told which database it is, none are listened to, until it can.
func TestEventsOfAnUnknownDatabaseAreNotListenedTo(t *testing.T) {
	server := redistest.Start(t, "--notify-keyspace-events", "Kgxe")
	client := aclClient(t, server, append([]string{"+config|get", "+select"}, aclRules...))
	client.Options().OnConnect = func(ctx context.Context, conn *redis.Conn) error { return conn.Select(ctx, 3).Err() }
	admin, inThree := server.Client(nil), server.Client(func(o *redis.Options) { o.DB = 3 })
	channels := func() []string { return admin.PubSubChannels(ctx, "__keyspace@*").Val() }
	var log logBuffer
	m := newManager(t, client, redislock.WithPrefix("app:"), redislock.WithLogger(log.logger()))
	var waiting []*redislock.Lock
	for _, key := range []string{"a", "b"} {
		require.NoError(t, inThree.Set(ctx, "app:"+key, "another program's", time.Hour).Err())
		waiting = append(waiting, m.Lock(ctx, key, time.Minute))
	}
	eventually(t, "said", func() bool { return strings.Contains(log.String(), "the number of the database cannot be told") })
	awaitWaiters(t, inThree, "app:a", 1)
	require.Empty(t, channels())

	require.NoError(t, admin.Do(ctx, "acl", "setuser", "locker", "+client|info").Err())
	eventually(t, "it listens to the events of both keys", func() bool { return len(channels()) == 2 })
	require.ElementsMatch(t, []string{"__keyspace@3__:app:a", "__keyspace@3__:app:b"}, channels())
	require.NoError(t, inThree.Del(ctx, "app:a", "app:b").Err())
	for _, l := range waiting {
		serve(t, l)
	}
}

// eventFlags are the server's.
func eventFlags(client *redis.Client) string {
	return client.ConfigGet(ctx, "notify-keyspace-events").Val()["notify-keyspace-events"]
}

func TestPassiveManagerWritesNoConfiguration(t *testing.T) {
	client := redistest.Start(t).Client(nil)
	var log logBuffer
	m := newManager(t, client, redislock.WithLogger(log.logger()), redislock.WithKeyspaceEvents(redislock.KeyspacePassive))
	require.NoError(t, client.Set(ctx, "key", "another program's", time.Hour).Err())
	l := m.Lock(ctx, "key", time.Minute)
	eventually(t, "said", func() bool { return strings.Contains(log.String(), "left alone") })
	require.Empty(t, eventFlags(client))

	require.NoError(t, client.ConfigSet(ctx, "notify-keyspace-events", "Kgxe").Err())
	awaitEvents(t, m, client, "key")
	require.NoError(t, client.Del(ctx, "key").Err())
	serve(t, l)
}

// Redis does not show "n" beside "A": to write back what was read would switch it off.
func TestFlagsThatCannotBeMergedAreLeftAlone(t *testing.T) {
	client := redistest.Start(t).Client(nil)
	err := client.ConfigSet(ctx, "notify-keyspace-events", "AEn").Err()
	if err != nil && strings.Contains(err.Error(), "Invalid argument") {
		t.Log("this Redis is older than 7.0 and has no events of new keys, which could be lost")
		return
	}
	require.NoError(t, err)
	_, err = redislock.NewLockManager(client, redislock.WithKeyspaceEvents(redislock.KeyspaceRequired))
	require.ErrorContains(t, err, "left alone")

	var log logBuffer
	m := newManager(t, client, redislock.WithLogger(log.logger()))
	require.NoError(t, client.Set(ctx, "key", "another program's", time.Hour).Err())
	l := m.Lock(ctx, "key", time.Minute)
	eventually(t, "said", func() bool { return strings.Contains(log.String(), "left alone") })
	created := client.Subscribe(ctx, "__keyevent@0__:new")
	defer created.Close()
	_, err = created.Receive(ctx)
	require.NoError(t, err)
	require.NoError(t, client.Set(ctx, "another", "", 0).Err())
	within, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err = created.ReceiveMessage(within)
	require.NoError(t, err, "events of new keys were switched off")
	require.NoError(t, l.Unlock())
}

func TestEventsThatAreSwitchedOnAreLogged(t *testing.T) {
	server := redistest.Start(t, "--notify-keyspace-events", "El")
	var log logBuffer
	newManager(t, server.Client(nil), redislock.WithLogger(log.logger()), redislock.WithKeyspaceEvents(redislock.KeyspaceRequired))
	for _, part := range []string{"level=INFO", "server=" + server.Addr, "before=lE", "after=lEKgxe", "KeyspacePassive"} {
		require.Contains(t, log.String(), part)
	}
}

func TestKeyspaceModesHaveNames(t *testing.T) {
	for mode, name := range map[redislock.KeyspaceMode]string{
		redislock.KeyspaceAuto: "KeyspaceAuto", redislock.KeyspaceRequired: "KeyspaceRequired",
		redislock.KeyspaceOff: "KeyspaceOff", redislock.KeyspacePassive: "KeyspacePassive", 17: "KeyspaceMode(17)",
	} {
		require.Equal(t, name, mode.String())
	}
	_, err := redislock.NewLockManager(redis.NewClient(&redis.Options{}), redislock.WithKeyspaceEvents(17))
	require.ErrorIs(t, err, redislock.ErrInvalidArgument)
	require.ErrorContains(t, err, "KeyspaceMode(17)")
}

// A cluster behind a type that is not known is noticed at the first call, not by the
// first who waits.
func TestWrappedClusterClientIsRefusedAtTheFirstCall(t *testing.T) {
	c := redistest.StartCluster(t, 3, 0)
	m := newManager(t, metered{c.Client(nil)})
	_, err := m.TryLock(ctx, "key", time.Minute)
	require.ErrorContains(t, err, "redis.ClusterClient")
	require.Zero(t, c.Client(nil).Exists(ctx, "key").Val(), "the refused call has left the key")
}
