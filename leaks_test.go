package redislock_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

// stuckLog is a log that takes nothing in before it may.
type stuckLog struct {
	slog.Handler
	may chan struct{}
}

func (s stuckLog) Enabled(context.Context, slog.Level) bool { return true }

func (s stuckLog) Handle(context.Context, slog.Record) error {
	<-s.may
	return nil
}

// The check that ends most tests sees whatever goroutine the library has begun, also
// by way of a timer, and none of those that only call it.
func TestGoroutinesThatAreLeftAreSeen(t *testing.T) {
	client := redistest.Start(t).Client(nil)
	log := stuckLog{slog.DiscardHandler, make(chan struct{})}
	m := newManager(t, client, redislock.WithLogger(slog.New(log)))
	seen := func(what string) bool {
		return slices.ContainsFunc(goroutines(), func(stack string) bool { return strings.Contains(stack, what) })
	}

	l := acquire(t, m, "key", 50*time.Millisecond)
	require.True(t, seen("created by github.com/redislock/redislock."), "those that send")
	l.Done()
	eventually(t, "one that a timer has begun is seen", func() bool { return seen("created by time.goFunc") })
	close(log.may)

	holder := acquire(t, m, "key", time.Minute)
	waiter := m.Lock(ctx, "key", time.Minute)
	waiting := known(waiter)
	eventually(t, "it waits", func() bool { return strings.Contains(stacks(), "redislock.(*Lock).Wait(") })
	require.False(t, seen("redislock.(*Lock).Wait("), "a test's own goroutine")
	require.NoError(t, holder.Unlock())
	receive(t, waiting)
	require.NoError(t, waiter.Unlock())
}
