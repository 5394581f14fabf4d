package redislock

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// What a user of Redis is allowed to do is found out before anything has an effect: a
// claim by plain commands would set the key, be refused all that follows, and be
// refused the release as well. So the first acquisitions at a server go by script,
// which Redis refuses as a whole, until one has been carried out there.
//
// What is forbidden later is undone by plain commands, as far as these are allowed.

// isDenied tells that Redis does not let this user do it, in a script or at all, or
// nobody, as where the command was renamed.
func isDenied(err error) bool {
	code, text := answered(err)
	if code == "NOPERM" {
		return true
	}
	for _, beginning := range []string{
		"The user executing the script can't", "ACL failure in script", "unknown command",
	} {
		if strings.HasPrefix(text, beginning) {
			return true
		}
	}
	// Within a script: "Unknown Redis command called from …", with the name of the
	// server (Redict), or without any (Valkey).
	rest, ok := strings.CutPrefix(text, "Unknown ")
	server, _, found := strings.Cut(rest, "command called from ")
	return ok && found && strings.Count(server, " ") <= 1
}

// plainTimeout bounds how long Redis may take over plain commands.
const plainTimeout = 2 * time.Second

// releasePlainly releases a lock without a script, which Redis has refused. Whoever
// stands in the line finds the key free when he looks. The goroutine ends by itself,
// and is joined by Close. The caller holds m.mu.
func (m *LockManager) releasePlainly(o *op) {
	l, s, refusal := o.lock, m.shardFor(o), o.err()
	o.simple, o.plain = false, true
	if o.spares(time.Now()) {
		m.released(o, refusal, time.Now())
		return
	}
	m.listening.Add(1)
	go func() {
		defer m.listening.Done()
		ctx, cancel := context.WithTimeout(context.Background(), plainTimeout)
		defer cancel()
		removed := int64(0) // as release.lua answers
		err := s.client.Watch(ctx, func(tx *redis.Tx) error {
			if value, err := tx.Get(ctx, l.key).Result(); err != nil || value != l.value {
				return err
			}
			_, err := tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
				pipe.Del(ctx, l.key)
				return nil
			})
			if err == nil {
				removed = 1
			}
			return err
		}, l.key)
		// A claim may have begun a fence, and nobody may give it a time to live by script.
		s.client.PExpire(ctx, l.line.slot.fence.(string), 24*time.Hour)

		m.mu.Lock()
		defer m.exitUnlock(context.Background())
		o.cmd = newCommand()
		o.cmd.SetVal(removed)
		if err != nil && !errors.Is(err, redis.Nil) {
			m.released(o, refusal, time.Now())
			return
		}
		m.released(o, nil, time.Now())
	}()
}
