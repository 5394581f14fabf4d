package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Each peer works on several servers with its best settings, alone and contended,
// and those that do not need all servers when one hangs or is killed.
func TestEachPeerLocksOnSeveralServers(t *testing.T) {
	var all []contender
	for _, c := range everywhere() {
		best := c.best
		c.best = func(u use) settings { s := best(u); s.timeout = 0; return s } // of a noisy machine's
		all = append(all, c)
	}
	for _, on := range []topology{quorum, cluster} {
		b := &bench{site: startTestSite(t, on), span: 60 * time.Millisecond, rounds: 1, log: io.Discard}
		for _, s := range topologies(true) {
			takes := s.takes
			s.takes = func(c contender) bool {
				return takes(c) && (s.fault == "" || c.name == redislockPeer.name || c.role == floor)
			}
			s.patience = 20 * time.Second // nobody needs that
			if s.on != on {
				continue
			}
			samples, err := b.run(s, all)
			require.NoError(t, err)
			require.GreaterOrEqual(t, len(samples), 2)
			for _, one := range samples {
				t.Run(one.Scenario+"/"+one.Peer, func(t *testing.T) {
					if known := knownFault(s, one); known != "" {
						t.Log(known)
						return
					}
					require.Empty(t, one.Failure)
					require.Positive(t, one.Figures["pairs/s"])
					require.Zero(t, one.Figures["hung"])
					require.GreaterOrEqual(t, one.Figures["commands/pair"], 2.0)
					require.GreaterOrEqual(t, one.Figures["pair-p50-us"], one.Figures["acquire-p50-us"])
				})
			}
		}
	}
}

// knownFault returns what a peer is known to get wrong now and then where callers
// wait for each other, if it did.
func knownFault(s scenario, one sample) string {
	switch {
	case !s.use.contended():
	case one.Peer == rueidislockPeer.name && (one.Failure == errHung.Error() || one.Figures["hung"] > 0):
		return "a wake-up is lost"
	case one.Peer == redsyncFast.name && strings.Contains(one.Failure, "the lock was not held"):
		return "a delete that is late takes the next SET of the same mutex with it"
	}
	return ""
}

// Who is not done counts with the time that it was given, and not as a pair, even if
// it succeeds when the server is well again. And the server is well again.
func TestWhoWaitsForAHungServerIsToldAfterAWhile(t *testing.T) {
	b := &bench{site: startTestSite(t, quorum), span: 50 * time.Millisecond, rounds: 2, log: io.Discard}
	one := contender{name: "one server is enough for it", on: quorum, best: always(settings{}),
		open: func(addrs []string, ttl time.Duration, s settings) (peer, error) { return openRaw(addrs[:1], ttl, s) }}
	s := throughput("", use{processes: 1, callers: 2, keys: 2})
	s.on, s.fault, s.patience = quorum, frozen, 100*time.Millisecond
	samples, err := b.run(s, []contender{one})
	require.NoError(t, err)
	require.Len(t, samples, 2)
	got := samples[0].Figures // the first server had it
	require.Empty(t, samples[0].Failure)
	require.Equal(t, 2.0, got["hung"])
	require.Zero(t, got["pairs/s"])
	require.GreaterOrEqual(t, got["pair-p50-us"], 150_000.0)
	require.NotContains(t, got, "commands/pair", "its server was not asked")
	got = samples[1].Figures // the second had it
	require.Zero(t, got["hung"])
	require.Positive(t, got["pairs/s"])
	require.NoError(t, b.site.servers[0].admin.Ping(context.Background()).Err())
}

// Where a fault ends, what came before it is gone.
func TestServersAreEmptyAfterAFault(t *testing.T) {
	ctx := context.Background()
	for _, on := range []topology{quorum, cluster} {
		s := startTestSite(t, on)
		for i, f := range []fault{frozen, killed} {
			if f == killed && on == cluster {
				continue // no scenario has it
			}
			require.NoError(t, s.strike(f, i))
			spent, err := s.spent()
			require.NoError(t, err)
			require.EqualValues(t, nodes-1, spent.asked)
			require.NoError(t, s.heal())
			require.NoError(t, s.heal(), "again, for nothing")
			other := s.servers[i].admin.Conn()
			for j := 0; ; j++ {
				err := other.Set(ctx, fmt.Sprint("left-over", j), "", time.Minute).Err()
				if err == nil {
					break
				}
				require.ErrorContains(t, err, "MOVED")
			}
			require.NoError(t, s.reset())
			require.Zero(t, s.servers[i].admin.DBSize(ctx).Val())
			require.Error(t, other.Ping(ctx).Err(), "a client from before")
			_ = other.Close()
		}
	}
}

// Whoever goes on with a majority's answers still has a key deleted where it was set
// late: else it could not be had once a server fails.
func TestNoKeysAreLeftOnTheServerThatWasNotWaitedFor(t *testing.T) {
	ctx := context.Background()
	s := startTestSite(t, quorum)
	for _, c := range []contender{redislockQuorum, rawQuorum} {
		p, err := c.open(s.addrs(), time.Minute, settings{})
		require.NoError(t, err)
		for i := range 1000 {
			release, err := p.Acquire(ctx, fmt.Sprint(c.name, i))
			require.NoError(t, err)
			require.NoError(t, release())
		}
		for _, one := range s.servers {
			require.Eventually(t, func() bool {
				keys, err := one.admin.Keys(ctx, c.name+"[0-9]*").Result()
				return err == nil && len(keys) == 0
			}, 30*time.Second, time.Millisecond, c.name)
		}
		require.NoError(t, p.Close())
	}
}
