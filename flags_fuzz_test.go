package redislock

import (
	"context"
	"math/bits"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock/internal/redistest"
)

// allFlags are those that notify-keyspace-events knows, of which A includes all
// but K, E, m and n.
const allFlags = "KEg$lshzxetdmn"

// flagsOf returns what flags mean to Redis.
func flagsOf(text string) map[rune]bool {
	set := make(map[rune]bool)
	for _, flag := range strings.ReplaceAll(text, "A", "g$lshzxetd") {
		set[flag] = true
	}
	return set
}

func checkFlags(t *testing.T, have, after string) {
	t.Helper()
	want := flagsOf(have + "Kgxe")
	require.Equal(t, want, flagsOf(after), "%q became %q", have, after)
}

// Flags are added, and only those that are missing; none is lost, not even one
// that a later Redis may bring.
func FuzzFlags(f *testing.F) {
	for _, have := range []string{
		"", "A", "AK", "AKE", "KA", "E", "Kgxe", "exgK", "KEg$lshzxetdmn", "g$lshzxetd", "m", "n", "mn", "AKEmn", "x", "K", "kGXE",
		"AA", "KK", "Kx\x00", "é", "Q", "\xff", "g x e",
	} {
		f.Add(have)
	}
	f.Fuzz(func(t *testing.T, have string) {
		missing := missingFlags(have)
		require.Subset(t, []rune("Kgxe"), []rune(missing))
		checkFlags(t, have, have+missing)
		for i := range missing {
			fewer := flagsOf(have + missing[:i] + missing[i+1:])
			require.False(t, fewer['K'] && fewer['g'] && fewer['x'] && fewer['e'], "%q needs no %q", have, missing[i])
		}
		require.Empty(t, missingFlags(have+missing))
	})
}

// Each flag and many sets of them, as a real Redis understands and rewrites
// them. Without n, which Redis 7.0 does not tell of beside A; so there the flags are left
// alone.
func TestFlagsOnRedis(t *testing.T) {
	client := redistest.Start(t).Client(nil)
	ctx := context.Background()
	const name = "notify-keyspace-events"
	told := strings.TrimSuffix(allFlags, "n")
	for i := range 1 << len(told) {
		if i%97 != 0 && bits.OnesCount(uint(i)) > 1 && bits.OnesCount(uint(i)) < len(told)-1 {
			continue
		}
		set := ""
		for j, flag := range told {
			if i>>j&1 == 1 {
				set += string(flag)
			}
		}
		require.NoError(t, client.ConfigSet(ctx, name, set).Err())
		before := client.ConfigGet(ctx, name).Val()[name]
		m, err := NewLockManager(client, WithKeyspaceEvents(KeyspaceRequired))
		if strings.Contains(before, "A") && !strings.Contains(before, "K") {
			require.ErrorContains(t, err, "left alone")
			require.Equal(t, before, client.ConfigGet(ctx, name).Val()[name])
			continue
		}
		require.NoError(t, err)
		checkFlags(t, set, client.ConfigGet(ctx, name).Val()[name])
		require.NoError(t, m.Close())
	}
}
