package redisserver

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A node is what one server of a cluster knows of another, or of itself: a line of
// CLUSTER NODES.
type node struct {
	id, addr  string
	flags     []string
	master    string // its ID, of a replica
	epoch     int64
	connected bool
	slots     [][2]int // first and last
}

// parseNodes takes the nodes from what CLUSTER NODES answers; those with whom the
// server only begins to speak are not among them.
func parseNodes(text string) ([]node, error) {
	var nodes []node
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			return nil, fmt.Errorf("CLUSTER NODES: %q", line)
		}
		epoch, err := strconv.ParseInt(fields[6], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("CLUSTER NODES: %w", err)
		}
		addr, _, _ := strings.Cut(fields[1], "@")
		n := node{
			id: fields[0], addr: addr, flags: strings.Split(fields[2], ","), master: fields[3],
			epoch: epoch, connected: fields[7] == "connected",
		}
		if n.is("handshake") {
			continue
		}
		for _, text := range fields[8:] {
			if strings.HasPrefix(text, "[") {
				continue // on its way from or to another node
			}
			first, last, isRange := strings.Cut(text, "-")
			if !isRange {
				last = first
			}
			from, err1 := strconv.Atoi(first)
			to, err2 := strconv.Atoi(last)
			if err1 != nil || err2 != nil {
				return nil, fmt.Errorf("CLUSTER NODES: slots %q", text)
			}
			n.slots = append(n.slots, [2]int{from, to})
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func (n node) is(flag string) bool { return slices.Contains(n.flags, flag) }

// isWell tells whether the server that said this of n can speak to it.
func (n node) isWell() bool { return n.connected && !n.is("fail") && !n.is("fail?") }

func (n node) serves(slot int) bool {
	return slices.ContainsFunc(n.slots, func(s [2]int) bool { return s[0] <= slot && slot <= s[1] })
}

// nodes asks a server what it knows of the cluster.
func (s *Server) nodes(timeout time.Duration) ([]node, error) {
	said, err := text(s.doWithin(timeout, "CLUSTER", "NODES"))
	if err != nil {
		return nil, err
	}
	return parseNodes(said)
}

// at returns the node with this address in a view.
func at(view []node, addr string) (node, bool) {
	i := slices.IndexFunc(view, func(n node) bool { return n.addr == addr })
	if i < 0 {
		return node{}, false
	}
	return view[i], true
}

// owner returns the master that serves a slot, by the view with the latest change
// (the highest epoch); none if it has failed.
func owner(views map[*Server][]node, slot int) (node, bool) {
	latest := node{epoch: -1}
	for _, view := range views {
		for _, n := range view {
			if n.serves(slot) && (n.epoch > latest.epoch || n.epoch == latest.epoch && n.is("fail")) {
				latest = n
			}
		}
	}
	return latest, latest.epoch >= 0 && !latest.is("fail")
}
