package redislock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// events is the manager's one subscription to Redis: to its own grant channel,
// and to the keyspace events of the keys that stand still while callers wait for
// them. It starts when a caller first has to wait, and ends with the manager.
//
// Everything it delivers makes things faster and nothing depends on it: a
// message that is lost is made up for by the look at the end of the lease, and a
// subscription that was interrupted by a look at every line.
type events struct {
	m       *LockManager
	db      int
	running sync.WaitGroup // listen and sync
	quit    chan struct{}  // closed by close

	// Guarded by the manager's mutex.

	started bool
	ready   bool // grants arrive: the grant channel is subscribed to
	pubsub  *redis.PubSub
	watched map[string]*line // by channel
	changed map[string]bool  // channels to subscribe to or, if false, to leave
	syncing bool             // a goroutine carries out the changes
	checked bool             // the server's flags were seen to on this connection
	refused bool             // keyspace events may not be subscribed to
	noted   bool             // the log has said that events are off
}

const (
	idleBeforePing = 3 * time.Second
	pongTimeout    = time.Second
	eventsTimeout  = 5 * time.Second
)

// freeing are the events after which a key may be free.
var freeing = map[string]bool{"expired": true, "del": true, "evicted": true, "rename_from": true}

func (e *events) init(m *LockManager) {
	e.m = m
	e.quit = make(chan struct{})
	e.watched = make(map[string]*line)
	e.changed = make(map[string]bool)
	if c, ok := m.client.(interface{ Options() *redis.Options }); ok {
		e.db = c.Options().DB
	}
}

// start begins to listen, once. The caller holds m.mu.
func (e *events) start() {
	if !e.started && !e.m.closed {
		e.started = true
		e.running.Add(1)
		go e.listen()
	}
}

// close ends listen and sync and waits for them.
func (e *events) close() {
	close(e.quit)
	e.m.mu.Lock()
	ps := e.pubsub
	e.m.mu.Unlock()
	if ps != nil {
		_ = ps.Close() // which may have to wait for a dial
	}
	e.running.Wait()
}

func (e *events) channel(ln *line) string {
	return "__keyspace@" + strconv.Itoa(e.db) + "__:" + ln.key
}

// watch subscribes to the events of a line's key. The caller holds m.mu.
func (e *events) watch(ln *line) {
	if e.refused || e.m.opts.keyspace == KeyspaceOff {
		return
	}
	ln.watched, ln.noise = true, 0
	e.watched[e.channel(ln)] = ln
	e.change(e.channel(ln), true)
}

// unwatch ends what watch began. The caller holds m.mu.
func (e *events) unwatch(ln *line) {
	ln.watched = false
	delete(e.watched, e.channel(ln))
	e.change(e.channel(ln), false)
}

func (e *events) change(channel string, subscribe bool) {
	if !e.ready || e.m.closed {
		return // subscribed will do it
	}
	e.changed[channel] = subscribe
	if !e.syncing {
		e.syncing = true
		e.running.Add(1)
		go e.sync()
	}
}

// sync carries out the changes of subscriptions. It ends when there are none left
// or there is no connection, and is joined by close.
func (e *events) sync() {
	defer e.running.Done()
	for {
		e.m.mu.Lock()
		if len(e.changed) == 0 || !e.ready || e.m.closed {
			e.syncing = false
			e.m.mu.Unlock()
			return
		}
		ps := e.pubsub
		var on, off []string
		for channel, subscribe := range e.changed {
			if subscribe {
				on = append(on, channel)
			} else {
				off = append(off, channel)
			}
		}
		clear(e.changed)
		check := !e.checked && len(on) > 0
		e.checked = e.checked || check
		e.m.mu.Unlock()

		if check {
			if err := e.configure(); err != nil {
				e.note("keyspace events may be off", err)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), eventsTimeout)
		var err error
		if len(on) > 0 {
			err = ps.Subscribe(ctx, on...)
		}
		if len(off) > 0 && err == nil {
			err = ps.Unsubscribe(ctx, off...)
		}
		cancel()
		if err != nil {
			_ = ps.Close() // listen notices, and subscribes anew
		}
	}
}

// note logs once that events are not to be counted on.
func (e *events) note(text string, err error) {
	e.m.mu.Lock()
	noted := e.noted
	e.noted = true
	e.m.mu.Unlock()
	if !noted {
		e.m.log.Info("redislock: "+text+
			": keys freed by other programs are noticed when their time to live ends", "error", err)
	}
}

// listen keeps the subscription up. It is started by start and ends with close,
// which joins it.
func (e *events) listen() {
	defer e.running.Done()
	for failures := 0; ; failures++ {
		ps := e.m.client.Subscribe(context.Background()) // sends nothing yet
		e.m.mu.Lock()
		if e.m.closed {
			e.m.mu.Unlock()
			_ = ps.Close()
			return
		}
		e.pubsub = ps
		e.m.mu.Unlock()

		began := time.Now()
		err := e.receive(ps)
		if time.Since(began) > time.Second {
			failures = 0
		}
		_ = ps.Close()

		e.m.mu.Lock()
		e.ready, e.pubsub, e.checked = false, nil, false
		closed := e.m.closed
		if !closed {
			if failures == 0 {
				e.m.warn("subscription interrupted", "error", err)
			}
			if !isUnsettled(err) {
				e.m.refuseWaiters(err)
			}
		}
		e.m.exit()
		if closed {
			return
		}
		if failures > 0 {
			select {
			case <-time.After(backoff(failures)):
			case <-e.quit:
			}
		}
	}
}

// receive subscribes, and takes in messages until the connection fails or goes
// silent.
func (e *events) receive(ps *redis.PubSub) error {
	ctx := context.Background()
	own := grantChannel + e.m.id
	subscribing, cancel := context.WithTimeout(ctx, eventsTimeout)
	defer cancel()
	if err := ps.Subscribe(subscribing, own); err != nil {
		return err
	}
	ready, pinged := false, false
	for {
		timeout := idleBeforePing
		if pinged || !ready {
			timeout = pongTimeout
		}
		msg, err := ps.ReceiveTimeout(ctx, timeout)
		var slow net.Error
		switch {
		case err == nil:
			pinged = false
		case errors.As(err, &slow) && slow.Timeout():
			if pinged || !ready {
				return fmt.Errorf("subscription is silent: %w", err)
			}
			// The health check of PubSub.Channel would be content with having
			// sent the ping.
			if err := ps.Ping(ctx); err != nil {
				return err
			}
			pinged = true
			continue
		case ready && redis.HasErrorPrefix(err, "NOPERM"):
			// The grant channel was allowed, so this is about keyspace events.
			e.m.mu.Lock()
			e.refused = true
			e.m.mu.Unlock()
			e.note("keyspace events may not be subscribed to", err)
			continue
		default:
			return err
		}

		switch msg := msg.(type) {
		case *redis.Subscription:
			if msg.Kind == "subscribe" && msg.Channel == own {
				if ready {
					return errors.New("subscription was renewed unasked")
				}
				ready = true
				e.subscribed()
			} else if msg.Kind == "subscribe" {
				e.event(msg.Channel, "", true)
			}
		case *redis.Message:
			if msg.Channel == own {
				e.granted(msg.Payload)
			} else {
				e.event(msg.Channel, msg.Payload, freeing[msg.Payload])
			}
		}
	}
}

// subscribed: from here on grants arrive. Those before may have been missed.
func (e *events) subscribed() {
	e.m.mu.Lock()
	defer e.m.exit()
	e.ready = true
	clear(e.changed)
	for channel := range e.watched {
		e.change(channel, true)
	}
	for _, ln := range e.m.lines {
		e.m.look(ln)
		e.m.pump(ln)
	}
}

// granted takes in a message on the grant channel.
func (e *events) granted(message string) {
	g, err := decodeGrant(message)
	if err != nil {
		e.m.log.Warn("redislock: grant message not understood", "error", err)
		return
	}
	e.m.mu.Lock()
	defer e.m.exit()
	if !e.m.closed {
		e.m.grantedElsewhere(g, time.Now())
	}
}

// event takes in a keyspace event, or that they begin to arrive.
func (e *events) event(channel, name string, look bool) {
	e.m.mu.Lock()
	defer e.m.exit()
	ln := e.watched[channel]
	if ln == nil || e.m.closed {
		return
	}
	if look {
		e.m.look(ln)
		return
	}
	// Every handover sets the key, and Redis tells all who watch it. A line that
	// moves so fast does not need watching.
	now := time.Now()
	if ln.noise == 0 || now.Sub(ln.noiseAt) > quiet {
		ln.noise, ln.noiseAt = 0, now
	}
	if ln.noise++; ln.noise >= noiseLimit {
		e.unwatch(ln)
		ln.calm = min(quiet+2*ln.calm, maxQuiet)
		ln.movedAt, ln.watchAt = now, now.Add(quiet+ln.calm)
		e.m.setTimer(ln, now)
	}
}

// refuseWaiters fails those who cannot wait because grants cannot arrive.
func (m *LockManager) refuseWaiters(err error) {
	for _, ln := range m.lines {
		unsent := ln.unsent
		ln.unsent = nil
		for _, l := range unsent {
			if l.state == waiting {
				m.abandon(l, err)
			}
		}
	}
}

// configure adds the flags for the events it needs to those that the server has.
func (e *events) configure() error {
	ctx, cancel := context.WithTimeout(context.Background(), eventsTimeout)
	defer cancel()
	const name = "notify-keyspace-events"
	values, err := e.m.client.ConfigGet(ctx, name).Result()
	if err != nil {
		return fmt.Errorf("CONFIG GET %s: %w", name, err)
	}
	have := values[name]
	missing := missingFlags(have)
	if missing == "" {
		return nil
	}
	if err := e.m.client.ConfigSet(ctx, name, have+missing).Err(); err != nil {
		return fmt.Errorf("CONFIG SET %s: %w", name, err)
	}
	e.m.log.Info("redislock: keyspace events switched on", "before", have, "added", missing)
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
