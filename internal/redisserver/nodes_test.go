package redisserver

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNodesAreReadFromWhatRedisSays(t *testing.T) {
	nodes, err := parseNodes("" +
		"aa 127.0.0.1:7001@17001,host myself,master - 0 0 3 connected 0-5 7 [8->-bb] [9-<-bb]\n" +
		"bb 127.0.0.1:7002@17002 master,fail? - 1 2 4 connected 8-16383\n" +
		"cc 127.0.0.1:7003@17003 slave aa 0 1 3 disconnected\n" +
		"dd 127.0.0.1:7004@17004 handshake - 0 1 0 connected\n")
	require.NoError(t, err)
	require.Equal(t, []node{
		{id: "aa", addr: "127.0.0.1:7001", flags: []string{"myself", "master"}, master: "-", epoch: 3, connected: true, slots: [][2]int{{0, 5}, {7, 7}}},
		{id: "bb", addr: "127.0.0.1:7002", flags: []string{"master", "fail?"}, master: "-", epoch: 4, connected: true, slots: [][2]int{{8, 16383}}},
		{id: "cc", addr: "127.0.0.1:7003", flags: []string{"slave"}, master: "aa", epoch: 3},
	}, nodes)
	for i, well := range []bool{true, false, false} {
		require.Equal(t, well, nodes[i].isWell(), nodes[i].id)
	}
	for slot, serves := range map[int]bool{0: true, 5: true, 6: false, 7: true, 8: false, 9: false} {
		require.Equal(t, serves, nodes[0].serves(slot), slot)
	}
	for _, bad := range []string{"aa", "aa b master - 0 0 x connected", "aa b master - 0 0 1 connected 1-x"} {
		_, err := parseNodes(bad)
		require.Error(t, err, bad)
	}
}

func TestOwnerIsWhoeverTheLatestViewNames(t *testing.T) {
	type views = map[*Server][]node
	a, b, c := new(Server), new(Server), new(Server)
	serving := func(addr string, epoch int64, flags ...string) node {
		return node{addr: addr, epoch: epoch, flags: flags, slots: [][2]int{{0, 9}}}
	}
	old, next, failed := serving("old", 1, "master"), serving("new", 7, "master"), serving("new", 7, "master", "fail")
	for _, views := range []views{{a: {old}, b: {next}}, {a: {next}, b: {old}}} {
		n, ok := owner(views, 5)
		require.True(t, ok)
		require.Equal(t, "new", n.addr)
	}
	for _, views := range []views{nil, {a: {old}, b: {failed}, c: {next}}, {a: {next}, b: {failed}}} {
		_, ok := owner(views, 5)
		require.False(t, ok)
	}
	_, ok := owner(views{a: {next}}, 10)
	require.False(t, ok)
}

func TestMasterIsWhatTheSentinelsSayOfTheLatestEpoch(t *testing.T) {
	a, b, c, d := new(Server), new(Server), new(Server), new(Server)
	old, next, odd := answer{"old", 1}, answer{"next", 2}, answer{"odd", 2}
	for range 20 { // in any order
		require.Equal(t, next, latest(map[*Server]answer{a: old, b: old, c: next}))
		require.Equal(t, next, latest(map[*Server]answer{a: old, b: next, c: odd, d: next}))
	}
}
