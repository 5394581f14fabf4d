package redislock

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Keyspace events: what Redis tells of keys that other programs free.

// freeing are the events after which a key may be free.
var freeing = map[string]bool{"expired": true, "del": true, "evicted": true, "rename_from": true}

// keyspaceChannel returns the channel of a key's events.
func (s *shard) keyspaceChannel(ln *line) string {
	return "__keyspace@" + strconv.Itoa(s.db) + "__:" + ln.key
}

// watch subscribes to the events of a line's key. The caller holds m.mu.
func (m *LockManager) watch(ln *line) {
	if m.opts.keyspace == KeyspaceOff {
		return
	}
	ln.watched, ln.noise = true, 0
	if m.quorum != nil {
		for _, s := range m.shards {
			s.events.watch(ln)
			s.events.start()
		}
		return
	}
	if at := ln.slot.at; at != nil {
		at.events.watch(ln)
	}
}

// unwatch ends what watch began. The caller holds m.mu.
func (m *LockManager) unwatch(ln *line) {
	ln.watched = false
	if m.quorum != nil {
		for _, s := range m.shards {
			s.events.unwatch(ln)
		}
		return
	}
	if at := ln.slot.at; at != nil {
		at.events.unwatch(ln)
	}
}

func (e *events) watch(ln *line) {
	if e.refused {
		return
	}
	channel := e.s.keyspaceChannel(ln)
	e.watched[channel] = ln
	e.change(channel, true)
}

func (e *events) unwatch(ln *line) {
	channel := e.s.keyspaceChannel(ln)
	delete(e.watched, channel)
	e.change(channel, false)
}

// event takes in a keyspace event.
func (e *events) event(channel, name string, look bool) {
	e.s.m.mu.Lock()
	defer e.s.m.exit()
	if e.s.m.quorum != nil {
		if look {
			e.freed(channel)
		}
	} else if look {
		e.look(channel)
	} else {
		e.heardNoise(channel, time.Now())
	}
}

// look has the line of a key looked after that may be free. The caller holds m.mu.
func (e *events) look(channel string) {
	if ln := e.watched[channel]; ln != nil && !e.s.m.closed {
		e.s.m.look(ln)
	}
}

// heardNoise counts events that free nothing. Every handover sets the key, and
// Redis tells all who watch it. A line that moves so fast does not need watching.
// The caller holds m.mu.
func (e *events) heardNoise(channel string, now time.Time) {
	m, ln := e.s.m, e.watched[channel]
	if ln == nil || m.closed {
		return
	}
	if ln.noise == 0 || now.Sub(ln.noiseAt) > quiet {
		ln.noise, ln.noiseAt = 0, now
	}
	if ln.noise++; ln.noise >= noiseLimit {
		m.unwatch(ln)
		ln.calm = min(quiet+2*ln.calm, maxQuiet)
		ln.movedAt, ln.watchAt = now, now.Add(quiet+ln.calm)
		m.setTimer(ln, now)
	}
}

// note logs once that events are not to be counted on.
func (m *LockManager) note(text string, err error) {
	m.mu.Lock()
	noted := m.noted
	m.noted = true
	m.mu.Unlock()
	if !noted {
		m.log.Info("redislock: "+text+
			": keys freed by other programs are noticed when their time to live ends", "error", err)
	}
}

// configure adds the flags for the events that the manager needs to those that
// the server has.
func (m *LockManager) configure(ctx context.Context, server redis.UniversalClient) error {
	ctx, cancel := context.WithTimeout(ctx, eventsTimeout)
	defer cancel()
	const name = "notify-keyspace-events"
	values, err := server.ConfigGet(ctx, name).Result()
	if err != nil {
		return fmt.Errorf("CONFIG GET %s: %w", name, err)
	}
	have := values[name]
	missing := missingFlags(have)
	if missing == "" {
		return nil
	}
	if err := server.ConfigSet(ctx, name, have+missing).Err(); err != nil {
		return fmt.Errorf("CONFIG SET %s: %w", name, err)
	}
	m.log.Info("redislock: keyspace events switched on", "before", have, "added", missing)
	return nil
}

// missingFlags returns what has to be added to notify-keyspace-events: K for
// events by key; g, x and e for deletion and renaming, expiry, and eviction,
// which A includes.
func missingFlags(have string) string {
	missing := ""
	for _, flag := range "Kgxe" {
		if !strings.ContainsRune(have, flag) && (flag == 'K' || !strings.Contains(have, "A")) {
			missing += string(flag)
		}
	}
	return missing
}
