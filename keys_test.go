package redislock

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var oddKeys = []string{
	"a", "order:42", "{tag}", "{tag}rest", "be{tag}fore", "{", "}", "{}", "}{", "{}a", "a{}b", "a{}{b}", "{a{b}c}",
	"a{b", "a}b", "{}{}", "{{}", "{}}", "a}b{c}d", "a{b}c}d{e}", ":", "::", ":{a}", "{a}:", "\x00", "{\x00}", "}\xff{",
	" ", "a b", "ключ", strings.Repeat("x", 10_000), strings.Repeat("}", 300),
}

func TestSlotIsThatOfRedis(t *testing.T) {
	// CLUSTER KEYSLOT of Redis 7.0 says so.
	for key, slot := range map[string]uint16{
		"123456789": 12739, "foo": 12182, "{user1000}.following": 3443, "user1000": 3443, "foo{}{bar}": 8363,
		"foo{{bar}}zap": 4015, "{bar": 4015, "": 0,
	} {
		require.Equal(t, slot, slotOf(key), "%q", key)
	}
}

func TestSideKeysShareTheSlotOfTheLock(t *testing.T) {
	for _, key := range oddKeys {
		checkKeys(t, key)
	}
}

func checkKeys(t *testing.T, key string) {
	t.Helper()
	k := keysOf(key)
	require.Equal(t, key, k.lock)
	require.Equal(t, slotOf(key), slotOf(k.queue), "%q and %q", key, k.queue)
	require.Equal(t, slotOf(key), slotOf(k.shortest), "%q and %q", key, k.shortest)
	require.Equal(t, slotOf(key), slotOf(k.skipped), "%q and %q", key, k.skipped)
	require.True(t, strings.HasPrefix(k.queue, reserved))
	require.True(t, strings.HasPrefix(k.shortest, reserved))
}

func TestNoTwoKeysShareASideKey(t *testing.T) {
	owners := make(map[string]string)
	claim := func(key string) {
		k := keysOf(key)
		for _, side := range []string{k.queue, k.shortest, k.skipped} {
			if owner, taken := owners[side]; taken && owner != key {
				t.Fatalf("%q and %q share %q", owner, key, side)
			}
			owners[side] = key
		}
	}
	// All short strings over the characters that matter.
	var grow func(key string)
	grow = func(key string) {
		if key != "" {
			claim(key)
		}
		if len(key) < 6 {
			for _, c := range "{}:1" {
				grow(key + string(c))
			}
		}
	}
	grow("")
	for _, key := range oddKeys {
		claim(key)
		claim("{" + key + "}")
		claim(":" + key)
	}
}

func TestEverySlotHasATag(t *testing.T) {
	for slot := range uint16(slots) {
		require.Equal(t, slot, slotOf("{"+slotTag(slot)+"}}any{thing}"))
	}
}

// So do the fence and the grant channels of a cluster, and no two slots share one.
func TestWhatASlotSharesIsInIt(t *testing.T) {
	seen := make(map[string]bool)
	for number := range uint16(slots) {
		sl := newSlot(number, slotTag(number), "manager")
		for _, name := range []string{sl.fence.(string), sl.grants.(string) + "other", sl.channel, sl.key} {
			require.Equal(t, number, slotOf(name), name)
			require.False(t, seen[name], name)
			seen[name] = true
		}
	}
	single := newSlot(0, "", "manager")
	require.Equal(t, []any{fenceKey, grantChannel}, []any{single.fence, single.grants})
}

func FuzzKeys(f *testing.F) {
	for _, key := range oddKeys {
		f.Add(key, key+"}")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if a == "" || b == "" {
			return // refused before it comes to keys
		}
		checkKeys(t, a)
		if a != b && keysOf(a).queue == keysOf(b).queue {
			t.Fatalf("%q and %q share %q", a, b, keysOf(a).queue)
		}
	})
}
