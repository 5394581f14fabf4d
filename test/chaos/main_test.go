package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The shares together have every fault once, and each has some of every kind of site.
func TestSharesOfTheFaults(t *testing.T) {
	const n = 6 // as in make check
	all := make(map[string]int)
	for k := range n {
		chosen, err := shareOf(faults(), string(rune('1'+k))+"/6")
		require.NoError(t, err)
		on := make(map[string]bool)
		for _, f := range chosen {
			all[f.name]++
			on[f.on] = true
		}
		require.Len(t, on, len(kinds))
	}
	require.Len(t, all, len(faults()), "names are unique")
	for name, times := range all {
		require.Equal(t, 1, times, name)
	}
	for _, wrong := range []string{"", "7/6", "0/6", "1"} {
		_, err := shareOf(faults(), wrong)
		require.Error(t, err, wrong)
	}
}

// A fault is on the kind of site that its name begins with.
func TestNamesOfFaultsTellTheSite(t *testing.T) {
	for _, f := range faults() {
		for _, kind := range kinds {
			if kind.prefix != "" && strings.HasPrefix(f.name, kind.prefix) {
				require.Equal(t, kind.kind, f.on, f.name)
			}
		}
	}
}
