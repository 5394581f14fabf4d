package main

import (
	"context"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func startTestSite(t *testing.T, on topology) *site {
	t.Helper()
	s, err := startSite(on, t.TempDir())
	require.NoError(t, err)
	t.Cleanup(s.close)
	return s
}

// Each peer works with its best settings, alone and contended; that only one holds
// a key at a time is checked by the drive itself.
func TestEachPeerLocks(t *testing.T) {
	b := &bench{site: startTestSite(t, single), span: 60 * time.Millisecond, rounds: 1, log: io.Discard}
	for _, s := range []scenario{
		throughput("uncontended", use{processes: 1, callers: 16, keys: 16}),
		throughput("contended", use{processes: 4, callers: 8, keys: 1}),
		throughput("keys", use{processes: 2, callers: 16, keys: 4}),
		order(),
	} {
		samples, err := b.run(s, contenders())
		require.NoError(t, err)
		for _, one := range samples {
			t.Run(one.Scenario+"/"+one.Peer, func(t *testing.T) {
				if known := knownFault(s, one); known != "" {
					t.Log(known)
					return
				}
				require.Empty(t, one.Failure)
				if s.name != "order" {
					require.Positive(t, one.Figures["pairs/s"])
					require.GreaterOrEqual(t, one.Figures["commands/pair"], 2.0)
				}
			})
		}
	}
}

// A peer that does not exclude is found out.
func TestTwoHoldersAreNoticed(t *testing.T) {
	u := use{processes: 1, callers: 4, keys: 1}
	_, _, _, err := sum(first(newDrive([]peer{open{}}, u).run(context.Background(), 50*time.Millisecond)))
	require.ErrorContains(t, err, "two hold key0")
}

// open lets everybody in.
type open struct{}

func (open) Acquire(context.Context, string) (func() error, error) {
	return func() error { return nil }, nil
}
func (open) Close() error { return nil }

// A peer that hangs costs its row, not the run.
func TestHangingPeerIsToldAndLeftBehind(t *testing.T) {
	site := startTestSite(t, single)
	deaf := contender{name: "deaf", open: func([]string, time.Duration, settings) (peer, error) {
		return &stuck{freed: make(chan struct{})}, nil
	}, best: always(settings{})}
	s := throughput("uncontended", use{processes: 1, callers: 2, keys: 2})
	b := &bench{site: site, span: 50 * time.Millisecond, rounds: 3, log: io.Discard}
	samples, err := b.run(s, []contender{deaf, rawPeer})
	require.NoError(t, err)
	require.Contains(t, samples[0].Failure, "hang")
	require.Len(t, slices.DeleteFunc(samples, func(s sample) bool { return s.Failure != "" }), 3, "the other one's rounds")
}

// stuck waits until its context ends, or it is closed.
type stuck struct{ freed chan struct{} }

func (s *stuck) Acquire(ctx context.Context, _ string) (func() error, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.freed:
		return nil, context.Canceled
	}
}

func (s *stuck) Close() error { close(s.freed); return nil }

func TestScenariosOfWaitingWork(t *testing.T) {
	b := &bench{site: startTestSite(t, single), span: 50 * time.Millisecond, rounds: 1, log: io.Discard}
	us := []contender{redislockPeer}
	few := parking{n: 50, settle: 200 * time.Millisecond, watch: 200 * time.Millisecond, drain: 5 * time.Second}
	s := parked(50, true)
	s.measure = few.measure
	got, err := b.run(s, us)
	require.NoError(t, err)
	require.Empty(t, got[0].Failure)
	require.Equal(t, 100.0, got[0].Figures["drained-%"])

	s = takeOver(100, true)
	got, err = b.run(s, us)
	require.NoError(t, err)
	require.Empty(t, got[0].Failure)
	require.Zero(t, got[0].Figures["never-%"])

	s = renewal(100, true)
	s.measure = keeping{n: 100, watch: 100 * time.Millisecond}.measure
	got, err = b.run(s, []contender{redislockPeer, rueidislockPeer})
	require.NoError(t, err)
	require.Len(t, got, 2)
	for _, one := range got {
		require.Empty(t, one.Failure, one.Peer)
		require.Zero(t, one.Figures["lost"], one.Peer)
	}
}
