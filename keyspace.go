package redislock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Keyspace events: what Redis tells of keys that other programs free.

// freeing are the events after which a key may be free.
var freeing = map[string]bool{"expired": true, "del": true, "evicted": true, "rename_from": true, "move_from": true}

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
	channel := e.s.keyspaceChannel(ln)
	e.watched[channel] = ln
	if !e.refusals.refused {
		e.change(channel, true)
	} // else askAgain will
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
	e.on = true
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

// refusals is what a server has refused of keyspace events. It may come to permit them,
// so it is asked again, ever more rarely: nothing that was refused once counts for ever.
type refusals struct {
	refused bool        // keyspace events may not be subscribed to at present
	apart   bool        // ask for each channel by itself: not all may be forbidden
	n       int         // how often in a row something was refused
	at      time.Time   // when that was last so
	timer   *time.Timer // runs askAgain; nil: nothing is refused
}

const (
	// minAskAgain is how long after the first refusal the server is asked again. It
	// doubles with each one that follows, up to maxAskAgain, and begins anew
	// once none has come for twice as long as that.
	minAskAgain = time.Second
	maxAskAgain = 30 * time.Second
)

// add notes a refusal, and has f called when the server is to be asked again.
func (r *refusals) add(now time.Time, f func()) {
	if now.Sub(r.at) > 2*maxAskAgain {
		r.n = 0
	}
	r.at = now
	if r.timer == nil {
		r.timer = time.AfterFunc(min(minAskAgain<<min(r.n, 10), maxAskAgain), f)
		r.n++
	}
}

// end forgets what was refused over a connection: over the next one everything is asked
// for anyway.
func (r *refusals) end() {
	r.refused, r.apart = false, false
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
}

// forbidden takes in that the keyspace events that were asked for over a connection may
// not be subscribed to.
func (e *events) forbidden(ps *redis.PubSub, err error) {
	e.refuse(ps, "keyspace events may not be subscribed to", err, true)
}

// nameless takes in that it is not known which database the keys are in, and so what their
// events are called. None are asked for until it is: those of another database tell of
// other keys by the same names.
func (e *events) nameless(ps *redis.PubSub, err error) {
	e.s.m.mu.Lock()
	e.checked = e.checked && e.pubsub != ps // what is asked for meanwhile has no name either
	e.s.m.mu.Unlock()
	e.refuse(ps, "keyspace events are not asked for", err, true)
}

// configured takes in what came of the attempt to see to the server's flags.
func (e *events) configured(ps *redis.PubSub, err error) {
	if err != nil {
		e.refuse(ps, "keyspace events may be off", err, false)
		return
	}
	e.s.m.mu.Lock()
	defer e.s.m.mu.Unlock()
	e.on = e.on || e.pubsub == ps
}

func (e *events) refuse(ps *redis.PubSub, text string, err error, subscribing bool) {
	m := e.s.m
	m.mu.Lock()
	if e.pubsub == ps && !m.closed {
		if subscribing {
			e.refusals.refused, e.refusals.apart = true, true
		}
		e.refusals.add(time.Now(), func() { e.askAgain(ps) })
	}
	m.mu.Unlock()
	m.note(text, err)
}

// askAgain asks for what was refused over the connection.
func (e *events) askAgain(ps *redis.PubSub) {
	m := e.s.m
	m.mu.Lock()
	defer m.exit()
	if e.pubsub != ps {
		return // begin has asked for all
	}
	refused := e.refusals.refused
	e.refusals.refused, e.refusals.timer = false, nil
	e.checked = e.on
	for channel := range e.watched {
		e.change(channel, true)
		if !refused {
			break // one is enough to have the flags seen to
		}
	}
}

// note logs once for each text that events are not to be counted on.
func (m *LockManager) note(text string, err error) {
	m.mu.Lock()
	noted := m.noted[text]
	m.noted[text] = true
	m.mu.Unlock()
	if noted {
		return
	}
	consequence := ": keys freed by other programs are noticed when their time to live ends"
	if m.quorum != nil {
		consequence = ": a key that others hold is asked for several times a second"
	}
	m.log.Info("redislock: "+text+consequence, "error", err)
}

// configure sees to it that a server has the flags for the events that the manager
// needs: it adds them to those that the server has, unless it may not. An error says
// that events may be off.
//
// Invariant: no flag that is on is switched off.
func (m *LockManager) configure(ctx context.Context, server redis.UniversalClient) error {
	ctx, cancel := context.WithTimeout(ctx, eventsTimeout)
	defer cancel()
	server = patient(server, maxAnswerTime, 0)
	const name = "notify-keyspace-events"
	values, err := server.ConfigGet(ctx, name).Result()
	if err != nil {
		return fmt.Errorf("CONFIG GET %s: %w", name, err)
	}
	have := values[name]
	missing := missingFlags(have)
	switch {
	case missing == "":
		return nil
	case m.opts.keyspace == KeyspacePassive:
		return fmt.Errorf("%s is %q, without %q, and is left alone", name, have, missing)
	case strings.Contains(have, "A"):
		// From Redis 7.0 on "A" hides "n", events of new keys, which is switched off by
		// writing back what was read.
		return fmt.Errorf("%s is %q, without %q, and is left alone: "+
			"\"n\" may be on as well, which Redis does not show beside \"A\"", name, have, missing)
	}
	if err := server.ConfigSet(ctx, name, have+missing).Err(); err != nil {
		return fmt.Errorf("CONFIG SET %s: %w", name, err)
	}
	m.log.Info("redislock: keyspace events switched on: set "+name+" on the server to prevent that, or use KeyspacePassive",
		"server", nameOf(server), "before", have, "after", have+missing)
	return nil
}

// nameOf returns how the log calls a server.
func nameOf(client redis.UniversalClient) string {
	if c, ok := client.(interface{ Options() *redis.Options }); ok {
		return c.Options().Addr
	}
	return fmt.Sprintf("of a %T", client)
}

// databaseOf returns the number of the database that a client is in, which the names
// of its events have. The server knows: by the client's options alone it cannot be told
// where a connection is led to another one as it is made, nor where the client is
// wrapped into another type.
func databaseOf(ctx context.Context, client redis.UniversalClient) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, eventsTimeout)
	defer cancel()
	info, err := patient(client, maxAnswerTime, 0).Do(ctx, "client", "info").Text()
	if err == nil {
		for _, field := range strings.Fields(info) {
			if number, ok := strings.CutPrefix(field, "db="); ok {
				return strconv.Atoi(number)
			}
		}
		err = errors.New("CLIENT INFO names no database")
	}
	if c, ok := client.(interface{ Options() *redis.Options }); ok && c.Options().OnConnect == nil {
		return c.Options().DB, nil
	}
	return 0, fmt.Errorf("the number of the database cannot be told: %w", err)
}

// learnDatabase asks which database the keys are in. It reports whether the channels
// have other names by that, and are to be subscribed to once more.
func (e *events) learnDatabase(ctx context.Context) (renamed bool, err error) {
	db, err := databaseOf(ctx, e.s.node)
	if err != nil {
		return false, err
	}
	m := e.s.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if db == e.s.db {
		return false, nil
	}
	e.s.db = db
	lines := e.watched
	e.watched = make(map[string]*line)
	for channel, ln := range lines {
		e.change(channel, false)
		e.watch(ln)
	}
	return true, nil
}

// requireWithin is how long it takes at most to make a manager with KeyspaceRequired.
const requireWithin = 5 * time.Second

// require is configure for KeyspaceRequired, which also wants to know the database.
func (m *LockManager) require(ctx context.Context, server redis.UniversalClient) error {
	return inTime(ctx, func(ctx context.Context) error {
		if err := m.configure(ctx, server); err != nil {
			return err
		}
		_, err := databaseOf(ctx, server)
		return err
	})
}

// requireOfAll is require for each master of a cluster.
func (m *LockManager) requireOfAll(c cluster) error {
	return inTime(context.Background(), func(ctx context.Context) error {
		return c.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
			return m.require(ctx, node)
		})
	})
}

// inTime calls f, and returns within requireWithin whatever the client's time-outs are: f
// is left to end with these then, and begins nothing any more, as its context has ended.
func inTime(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, requireWithin)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- f(ctx) }()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("keyspace events: %w", noAnswerWithin(requireWithin))
	}
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
