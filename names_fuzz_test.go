package redislock_test

import (
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// oddTexts are what protocols, patterns and formats may trip over.
var oddTexts = []string{
	"a", ":", "::", " ", "  ", "\x00", "a\x00b", "\xff\xfe", "\xc3(", "{", "}", "{}", "{a}b", "a}b{", "\r\n", "$3\r\nfoo\r\n",
	"1:2:3", "manager:1000:1:value", ":1000:1:v", "1 2 3 4 5 6", "%s%d%", "^(.*)$", "'\"\\", "ключ", "\n", "-1", "0", "nil",
	"redislock", strings.Repeat("\x00", 300), strings.Repeat("long:", 2000),
}

// Keys, prefixes and owner values of any bytes come unaltered through claim,
// queue, handover and grant.
func TestNamesOfAnyBytes(t *testing.T) {
	onEach(t, func(t *testing.T, client *redis.Client) {
		for i, text := range oddTexts {
			next := func(n int) string { return oddTexts[(i+n)%len(oddTexts)] }
			checkNames(t, client, "", text, next(1), next(2), next(3))
			checkNames(t, client, text, next(4), text, text+text, text+":")
			checkNames(t, client, next(5), text, "1:"+text, ":"+text, " "+text)
		}
	})
}

func FuzzNames(f *testing.F) {
	for i, text := range oddTexts {
		next := func(n int) string { return oddTexts[(i+n)%len(oddTexts)] }
		f.Add("", text, next(1), next(2), next(3))
		f.Add(text, next(4), text, text+text, text+":")
	}
	f.Add("", "redislock:x", "a", "b", "c")
	f.Add("redis", "lock:x", "a", "b", "c")
	f.Add("redislock:", "x", "a", "b", "c")
	f.Add("", "", "a", "b", "c")
	f.Add("prefix", "", "a", "b", "c")
	f.Add("", "key", "", "b", "c")
	server, err := miniredis.Run()
	require.NoError(f, err)
	f.Cleanup(server.Close)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	f.Cleanup(func() { client.Close() })
	f.Fuzz(func(t *testing.T, prefix, key, a, b, c string) {
		checkNames(t, client, prefix, key, a, b, c)
	})
}

// checkNames has the lock go from owner value a to b, which waits in another
// manager, and on to c in the same.
func checkNames(t *testing.T, client *redis.Client, prefix, key, a, b, c string) {
	t.Helper()
	first, err := redislock.NewLockManager(client, redislock.WithPrefix(prefix))
	if strings.HasPrefix(prefix, "redislock:") {
		require.ErrorIs(t, err, redislock.ErrInvalidArgument)
		return
	}
	require.NoError(t, err)
	defer first.Close()
	second, err := redislock.NewLockManager(client, redislock.WithPrefix(prefix))
	require.NoError(t, err)
	defer second.Close()

	full := prefix + key
	queue, shortest := redislock.KeysOf(full)
	lock := func(m *redislock.LockManager, value string) *redislock.Lock {
		return m.Lock(ctx, key, time.Minute, redislock.WithValue(value))
	}
	x := lock(first, a)
	if key == "" || strings.HasPrefix(full, "redislock:") || a == "" {
		require.ErrorIs(t, x.Wait().Err, redislock.ErrInvalidArgument)
		return
	}
	holds := func(l *redislock.Lock, value string) {
		t.Helper()
		require.NoError(t, soon(t, l).Err)
		require.Equal(t, value, client.Get(ctx, full).Val())
		require.Equal(t, value, l.Value())
		require.Equal(t, full, l.Key())
	}
	holds(x, a)
	if b == "" || c == "" || a == b || a == c || b == c {
		require.NoError(t, x.Unlock()) // values must differ
		return
	}

	y := lock(second, b)
	awaitWaiters(t, client, full, 1)
	z := lock(second, c)
	awaitWaiters(t, client, full, 2)
	line := client.ZRange(ctx, queue, 0, -1).Val()
	require.True(t, strings.HasSuffix(line[0], ":60000:3:"+b), "%q", line)
	require.True(t, strings.HasSuffix(line[1], ":60000:5:"+c), "%q", line)

	require.NoError(t, x.Unlock())
	holds(y, b)
	require.Greater(t, y.Token(), x.Token())
	require.NoError(t, y.Unlock())
	holds(z, c)
	require.Greater(t, z.Token(), y.Token())
	require.NoError(t, z.Unlock())
	require.Zero(t, client.Exists(ctx, full, queue, shortest).Val())
}

// The owner value also goes over the grant channel.
func TestOwnerValueOfAMegabyte(t *testing.T) {
	client := redistest.Start(t).Client(nil)
	long := strings.Repeat("x", 1<<20)
	checkNames(t, client, "", "key", long, long+"y", long+"z")
}
