package redislock_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock"
)

// BenchmarkServer tells how long the server takes for each of the scripts, as it
// counts itself, with so many waiters in line; and for the bare commands of a claim
// and of an owner-checked delete. What a pipeline saves is saved: 500 at a time.
func BenchmarkServer(b *testing.B) {
	const ownerDelete = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`
	value := func(i int) string { return fmt.Sprintf("0b8e6e0c-7d5f-4c0b-9b5e-%012d", i) }
	queue, shortest := redislock.KeysOf("key")
	keys := []any{5, "key", queue, redislock.FenceKey, shortest, redislock.SkippedKeys + "{key}"}
	const manager, channel = "AAAAAAAAAAAAAAAAAAAAAA", "redislock:grant:"
	call := func(sha string, args ...any) []any {
		return append(append([]any{"evalsha", sha}, keys...), args...)
	}
	join := func(sha string, i, ttl int) []any {
		return call(sha, value(i), ttl, "join", manager, channel, i, "")
	}
	for _, one := range []struct {
		name, script, stat string
		waiters            []int
		command            func(sha string, i int) [][]any // the last is what is measured
	}{
		{"claim", "", "set", []int{0}, func(_ string, i int) [][]any {
			return [][]any{{"set", "key", value(i), "nx", "px", 60000}}
		}},
		{"draw", "", "incr", []int{0}, func(string, int) [][]any { return [][]any{{"incr", redislock.FenceKey}} }},
		{"acquireFree", "acquire.lua", "evalsha", []int{0}, func(sha string, i int) [][]any {
			return [][]any{{"del", "key"}, call(sha, value(i), 60000, "try", manager, channel, i, "")}
		}},
		{"ownerDelete", ownerDelete, "evalsha", []int{0}, func(sha string, i int) [][]any {
			return [][]any{{"set", "key", value(i)}, {"evalsha", sha, 1, "key", value(i)}}
		}},
		{"releaseFree", "release.lua", "evalsha", []int{0}, func(sha string, i int) [][]any {
			return [][]any{{"set", "key", value(i)}, call(sha, value(i), manager, channel, "")}
		}},
		{"releaseSimple", "free.lua", "evalsha", []int{0}, func(sha string, i int) [][]any {
			return [][]any{{"set", "key", value(i)}, {"evalsha", sha, 2, "key", queue, value(i)}}
		}},
		{"releaseTenSimple", "free.lua", "evalsha", []int{0}, func(sha string, i int) [][]any {
			call, queues, values, set := []any{"evalsha", sha, 20}, []any{}, []any{}, []any{"mset"}
			for j := range 10 {
				key := fmt.Sprint("key", j)
				queue, _ := redislock.KeysOf(key)
				call, queues, values = append(call, key), append(queues, queue), append(values, value(i+j))
				set = append(set, key, value(i+j))
			}
			return [][]any{set, slices.Concat(call, queues, values)}
		}},
		{"join", "acquire.lua", "evalsha", []int{10, 1000, 100_000}, func(sha string, i int) [][]any {
			return [][]any{{"zpopmin", queue}, join(sha, i, 60000+i%2)}
		}},
		{"joinBehind", "acquire.lua", "evalsha", []int{10, 1000, 100_000}, func(sha string, i int) [][]any {
			return [][]any{{"zpopmin", queue}, join(sha, i, 60000)} // as those before it
		}},
		{"releaseHandover", "release.lua", "evalsha", []int{10, 1000, 100_000}, func(sha string, i int) [][]any {
			next := fmt.Sprintf("%s:60000:%d:%s", manager, i+1_000_000, value(i+1))
			return [][]any{{"zadd", queue, time.Now().UnixMicro(), next}, {"set", "key", "mine"}, call(sha, "mine", manager, channel, "")}
		}},
		{"extend", "extend.lua", "evalsha", []int{0}, func(sha string, i int) [][]any {
			return [][]any{{"set", "key", "mine", "px", 1000}, {"evalsha", sha, 1, "key", "mine", 30000}}
		}},
	} {
		for _, waiters := range one.waiters {
			b.Run(fmt.Sprintf("%s/%d", one.name, waiters), func(b *testing.B) {
				_, client := benchServer(b)
				load := func(text string) string {
					sha, err := client.ScriptLoad(ctx, text).Result()
					if err != nil {
						b.Fatal(err)
					}
					return sha
				}
				var sha string
				if strings.HasSuffix(one.script, ".lua") {
					sha = load(redislock.ScriptText(one.script))
				} else if one.script != "" {
					sha = load(one.script)
				}
				send := func(commands [][]any) {
					pipe := client.Pipeline()
					for _, c := range commands {
						pipe.Do(ctx, c...)
					}
					if _, err := pipe.Exec(ctx); err != nil && err != redis.Nil {
						b.Fatal(err)
					}
				}
				if waiters > 0 {
					acquire := load(redislock.ScriptText("acquire.lua"))
					send([][]any{{"set", "key", "mine"}})
					for i := 0; i < waiters; i += 500 {
						var joins [][]any
						for j := i; j < min(i+500, waiters); j++ {
							joins = append(joins, join(acquire, j, 60000))
						}
						send(joins)
					}
				}
				var took, calls float64
				for b.Loop() {
					var commands [][]any
					for i := range 500 {
						commands = append(commands, one.command(sha, i)...)
					}
					client.ConfigResetStat(ctx)
					send(commands)
					us, n := commandStat(b, client, one.stat)
					took, calls = took+us, calls+n
				}
				b.ReportMetric(took/calls, "server-us/call")
			})
		}
	}
}

// commandStat returns the server's time for a command, in us, and the calls of it,
// since it was asked to count anew.
func commandStat(b *testing.B, client *redis.Client, name string) (us, calls float64) {
	stats, err := client.InfoMap(ctx, "commandstats").Result()
	if err != nil {
		b.Fatal(err)
	}
	text := stats["Commandstats"]["cmdstat_"+name]
	if _, err := fmt.Sscanf(text, "calls=%g,usec=%g,", &calls, &us); err != nil {
		b.Fatalf("%s: %q: %v", name, text, err)
	}
	return us, calls
}
