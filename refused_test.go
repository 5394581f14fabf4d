package redislock_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// A Redis that takes no writes for a while is asked again: to release as well.
func TestUnlockIsTriedAgainByARedisThatTakesNoWrites(t *testing.T) {
	for name, set := range map[string]func(refuse bool) []any{
		"NOREPLICAS": func(refuse bool) []any {
			return []any{"config", "set", "min-replicas-to-write", map[bool]int{true: 1}[refuse]}
		},
		"READONLY": func(refuse bool) []any {
			if refuse {
				return []any{"replicaof", "127.0.0.1", "1"}
			}
			return []any{"replicaof", "no", "one"}
		},
	} {
		for line := range 2 { // the script's first write is another if there is one
			t.Run(fmt.Sprintf("%s/%d", name, line), func(t *testing.T) {
				client := redistest.Start(t).Client(nil)
				m := newManager(t, client)
				l := acquire(t, m, "key", time.Minute)
				var waiting []*redislock.Lock
				for range line {
					waiting = append(waiting, m.Lock(ctx, "key", time.Minute))
				}
				awaitWaiters(t, client, "key", line)
				require.NoError(t, client.Do(ctx, set(true)...).Err())
				time.AfterFunc(300*time.Millisecond, func() { client.Do(ctx, set(false)...) })
				require.NoError(t, l.Unlock())
				for _, next := range waiting {
					serve(t, next)
				}
				requireClean(t, client)
			})
		}
	}
}
