package redisserver

import (
	"errors"
	"fmt"
	"net"
)

// errKeysLeft is why a move cannot end yet.
var errKeysLeft = errors.New("its owner still has keys of it, which would be lost")

// BeginMove begins to move a slot to another master: from now on its owner sends
// whoever asks for a key that it does not have to the other one (ASK).
func (c *Cluster) BeginMove(slot int, to *Server) error {
	from, err := c.Owner(slot)
	if err != nil {
		return err
	}
	source, err := from.id()
	if err != nil {
		return err
	}
	target, err := to.id()
	if err != nil {
		return err
	}
	if err := to.setSlot(slot, "IMPORTING", source); err != nil {
		return err
	}
	return from.setSlot(slot, "MIGRATING", target)
}

func (s *Server) setSlot(slot int, state, id string) error {
	_, err := s.do("CLUSTER", "SETSLOT", slot, state, id)
	return err
}

// MoveKeys moves the slot's keys to the other master, until none is left.
func (c *Cluster) MoveKeys(slot int, to *Server) error {
	from, err := c.Owner(slot)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(to.Addr)
	if err != nil {
		return err
	}
	for {
		keys, err := list(from.do("CLUSTER", "GETKEYSINSLOT", slot, 100))
		if err != nil || len(keys) == 0 {
			return err
		}
		migrate := append([]any{"MIGRATE", host, port, "", 0, (atLast / 2).Milliseconds(), "KEYS"}, keys...)
		if _, err := from.do(migrate...); err != nil {
			return err
		}
	}
}

// EndMove makes the other master the slot's owner, tells all masters, and returns when
// every node that answers says so, and knows of the epoch in which it became the owner.
// A node that cannot be reached learns of it from the others.
//
// The epoch matters: the next move takes the one after the highest that its target
// knows of. Were that the same again, nodes would disagree about who is the owner, and
// one that takes itself for no owner any more deletes the keys.
func (c *Cluster) EndMove(slot int, to *Server) error {
	from, err := c.Owner(slot)
	if err != nil {
		return err
	}
	id, err := to.id()
	if err != nil {
		return err
	}
	if left, err := from.do("CLUSTER", "COUNTKEYSINSLOT", slot); err != nil {
		return err
	} else if left != int64(0) && from != to {
		return fmt.Errorf("slot %d: %w", slot, errKeysLeft)
	}
	// First the target: were it the source, there could be a moment at which the slot
	// has no owner.
	if err := to.setSlot(slot, "NODE", id); err != nil {
		return err
	}
	if from != to {
		if err := from.setSlot(slot, "NODE", id); err != nil {
			return err
		}
	}
	for _, s := range c.Servers {
		if s == from || s == to {
			continue
		}
		if name, _, _, err := s.role(soon); err != nil || name != "master" {
			continue
		}
		if err := s.setSlot(slot, "NODE", id); err != nil {
			return err
		}
	}
	return until(func() error { return c.agreed(slot, to) })
}

// agreed returns an error unless all nodes that answer hold the same master for the
// owner of the slot, since the same epoch as it does itself.
func (c *Cluster) agreed(slot int, owner *Server) error {
	views, err := askAll(c.Servers, (*Server).nodes)
	if err != nil {
		return err
	}
	own, ok := at(views[owner], owner.Addr)
	if !ok {
		return fmt.Errorf("%s does not answer", owner.Addr)
	}
	for s, view := range views {
		if n, ok := at(view, owner.Addr); !ok || !n.serves(slot) || n.epoch != own.epoch {
			return fmt.Errorf("%s knows of the owner of slot %d only %+v", s.Addr, slot, n)
		}
	}
	return nil
}

// Move moves a slot with its keys to another master; nothing, if that has it already.
func (c *Cluster) Move(slot int, to *Server) error {
	if from, err := c.Owner(slot); err != nil || from == to {
		return err
	}
	if err := c.BeginMove(slot, to); err != nil {
		return err
	}
	for {
		if err := c.MoveKeys(slot, to); err != nil {
			return err
		}
		// Keys may have come meanwhile.
		if err := c.EndMove(slot, to); !errors.Is(err, errKeysLeft) {
			return err
		}
	}
}
