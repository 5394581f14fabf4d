package redislock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// events is the manager's one subscription to a shard: to its own grant channels,
// and to the keyspace events of the keys that stand still while callers wait for
// them. It starts when a caller first has to wait, and ends with the manager, or
// when a cluster has moved everything elsewhere.
//
// Everything it delivers makes things faster and nothing depends on it: a
// message that is lost is made up for by the look at the end of the lease, and a
// subscription that was interrupted by a look at every line.
type events struct {
	s *shard

	// Guarded by the manager's mutex.

	started bool
	heard   atomic.Uint64    // messages; not guarded
	suspect bool             // it is being looked whether messages arrive
	pubsub  *redis.PubSub    // nil: no connection
	open    bool             // changes can be sent over it
	slots   map[string]*slot // those whose grant channels are wanted here, by channel
	watched map[string]*line // those whose keyspace events are, by channel
	changed map[string]bool  // channels to subscribe to or, if false, to leave
	syncing bool             // a goroutine carries out the changes
	checked bool             // the server's flags were seen to on this connection
	on      bool             // and are there, or an event has come over it
	doubted bool             // slots are to be probed with the next answer

	refusals refusals
}

const (
	idleBeforePing = 3 * time.Second
	pongTimeout    = time.Second
	beginTimeout   = 700 * time.Millisecond // for the first answer: callers wait for it, a second at most
	eventsTimeout  = 5 * time.Second

	// connectTimeout is how long the first attempt to connect may take, where the way is
	// short, and the next ones twice as long each.
	connectTimeout = 250 * time.Millisecond

	// maxListenBackoff bounds the pause before the next attempt.
	maxListenBackoff = 250 * time.Millisecond

	// maxUnneeded is how many attempts in a row may fail before, with nobody waiting, the
	// next one is left to whoever waits first: each costs the server a connection.
	maxUnneeded = 6
)

// once is a context that has ended. go-redis's PubSub connects again by itself inside a call that
// finds the connection broken, for as long as a dial takes, before it says so;
// under this context it cannot, and all else it does as ever, as it heeds deadlines
// only.
var once = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// connectWithin returns how long connecting may take after it has failed so often. A new
// connection takes five round trips.
func (e *events) connectWithin(failures int) time.Duration {
	m := e.s.m
	m.mu.Lock()
	defer m.mu.Unlock()
	limit := firstStall
	if way := e.s.roundTrip.estimate(); way > 0 {
		limit = max(connectTimeout, 10*way)
	}
	return min(limit<<min(failures, 10), eventsTimeout)
}

// within stretches a time limit for where the way is long.
func (e *events) within(limit time.Duration) time.Duration {
	e.s.m.mu.Lock()
	defer e.s.m.mu.Unlock()
	return e.s.roundTrip.stretch(limit)
}

// newPubSub returns a PubSub that sends nothing yet, and a function after which it does
// not connect any more.
func (e *events) newPubSub(limit time.Duration) (ps *redis.PubSub, last func()) {
	c, ok := e.s.node.(*redis.Client)
	if !ok {
		return e.s.node.Subscribe(once), func() {}
	}
	c = c.WithTimeout(limit) // its own options; greetings are waited for no longer
	return c.Subscribe(once), func() {
		c.Options().Network = "none" // for dialers that do not heed contexts, as TLS's
	}
}

// suspected has the subscription looked at now, and not only once it has been silent for
// long: a message that should have come has not. The caller holds m.mu.
func (e *events) suspected() {
	m, ps := e.s.m, e.pubsub
	if !e.open || e.suspect || m.closed {
		return
	}
	e.suspect = true
	heard := e.heard.Load()
	go func() { _ = ps.Ping(once) }()
	time.AfterFunc(e.s.roundTrip.stretch(pongTimeout), func() {
		m.mu.Lock()
		e.suspect = false
		deaf := e.pubsub == ps && e.heard.Load() == heard
		m.mu.Unlock()
		if deaf {
			_ = ps.Close() // run notices, and subscribes anew
		}
	})
}

func (e *events) init(s *shard) {
	e.s = s
	e.slots = make(map[string]*slot)
	e.watched = make(map[string]*line)
	e.changed = make(map[string]bool)
}

// listen has the slot's grant channel subscribed to where the slot is. The caller
// holds m.mu.
func (m *LockManager) listen(sl *slot) {
	if sl.at != nil || m.closed {
		return
	}
	s := m.shardOf(sl)
	if s.node == nil {
		m.topology.unsettled(m) // comes back when it is known
		return
	}
	sl.at = s
	e := &s.events
	e.slots[sl.channel] = sl
	e.change(sl.channel, true)
	for _, ln := range sl.lines {
		if ln.watched {
			e.watch(ln)
		}
	}
	e.start()
}

// unlisten ends what listen began. The caller holds m.mu.
func (m *LockManager) unlisten(sl *slot) {
	if sl.at == nil {
		return
	}
	e := &sl.at.events
	for _, ln := range sl.lines {
		if ln.watched {
			e.unwatch(ln)
		}
	}
	delete(e.slots, sl.channel)
	e.change(sl.channel, false)
	sl.at, sl.ready = nil, false
}

// start begins to listen, unless it does already. The caller holds m.mu.
func (e *events) start() {
	if !e.started && !e.s.m.closed {
		e.started = true
		e.s.m.listening.Add(1)
		go e.run()
	}
}

// unused tells whether nothing is wanted of the subscription.
func (e *events) unused() bool { return len(e.slots)+len(e.watched) == 0 }

// leaveUnneeded gives up the grant channels for which nobody waits: whoever does next has
// them subscribed to anew. The caller holds m.mu.
func (e *events) leaveUnneeded() {
	for _, sl := range e.slots {
		if !sl.wanted() {
			e.s.m.unlisten(sl)
		}
	}
}

// close ends the connection, and so the goroutines that use it. One that is being made
// is left to begin, as PubSub.Close would have to wait for it.
func (e *events) close() {
	e.s.m.mu.Lock()
	ps, open := e.pubsub, e.open
	e.s.m.mu.Unlock()
	if open {
		_ = ps.Close()
	}
}

// change has a channel subscribed to, or left. The caller holds m.mu.
func (e *events) change(channel string, subscribe bool) {
	if !e.open || e.s.m.closed {
		return // begin will do it
	}
	e.changed[channel] = subscribe
	if !e.syncing {
		e.syncing = true
		e.s.m.listening.Add(1)
		go e.sync()
	}
}

// sync carries out the changes of subscriptions. It ends when there are none left
// or there is no connection, and is joined by Close.
func (e *events) sync() {
	m := e.s.m
	defer m.listening.Done()
	for {
		m.mu.Lock()
		if len(e.changed) == 0 || !e.open || m.closed {
			e.syncing = false
			m.mu.Unlock()
			return
		}
		ps := e.pubsub
		var c changes
		for channel, subscribe := range e.changed {
			c.add(channel, subscribe)
		}
		clear(e.changed)
		check := !e.checked && len(c.watch) > 0
		e.checked = e.checked || check
		apart := e.refusals.apart
		m.mu.Unlock()

		err := c.grants(once, ps, m.topology != nil)
		if check && err == nil {
			renamed, unknown := e.learnDatabase(m.quit)
			if unknown != nil {
				e.nameless(ps, unknown)
				c.watch = nil
			} else {
				e.configured(ps, m.configure(m.quit, e.s.node))
			}
			if renamed {
				continue
			}
		}
		if err == nil {
			err = c.keyspace(once, ps, apart)
		}
		if err != nil {
			_ = ps.Close() // run notices, and subscribes anew
		}
	}
}

// changes are channels to subscribe to and to leave.
type changes struct{ join, leave, watch, unwatch []string }

func (c *changes) add(channel string, subscribe bool) {
	grants := strings.HasPrefix(channel, grantChannel)
	switch {
	case grants && subscribe:
		c.join = append(c.join, channel)
	case grants:
		c.leave = append(c.leave, channel)
	case subscribe:
		c.watch = append(c.watch, channel)
	default:
		c.unwatch = append(c.unwatch, channel)
	}
}

// grants carries out what concerns grant channels. Sharded ones go one by one:
// those of a command have to be of one slot.
func (c *changes) grants(ctx context.Context, ps *redis.PubSub, sharded bool) error {
	join, leave := ps.Subscribe, ps.Unsubscribe
	if sharded {
		join, leave = ps.SSubscribe, ps.SUnsubscribe
	}
	for _, channel := range c.join {
		if err := join(ctx, channel); err != nil {
			return err
		}
	}
	for _, channel := range c.leave {
		if err := leave(ctx, channel); err != nil {
			return err
		}
	}
	return nil
}

// keyspace carries out what concerns keyspace events. Apart, one that is forbidden
// keeps none from the others.
func (c *changes) keyspace(ctx context.Context, ps *redis.PubSub, apart bool) error {
	watch := slices.Chunk(c.watch, max(1, len(c.watch)))
	if apart {
		watch = slices.Chunk(c.watch, 1)
	}
	for channels := range watch {
		if err := ps.Subscribe(ctx, channels...); err != nil {
			return err
		}
	}
	if len(c.unwatch) > 0 {
		return ps.Unsubscribe(ctx, c.unwatch...)
	}
	return nil
}

// run keeps the subscription up for as long as it is used. It is started by
// start, and joined by Close.
func (e *events) run() {
	m := e.s.m
	defer m.listening.Done()
	for failures, dials := 0, 0; ; failures++ {
		limit := e.connectWithin(dials)
		ps, last := e.newPubSub(limit)
		m.mu.Lock()
		if failures > maxUnneeded {
			e.leaveUnneeded()
		}
		if m.closed || m.ended != nil || e.s.ended || e.unused() {
			e.started = false
			m.mu.Unlock()
			_ = ps.Close()
			return
		}
		e.pubsub = ps
		m.mu.Unlock()

		began := time.Now()
		err := inSetUp(e.begin(ps, limit, last))
		dials++
		if err == nil {
			dials = 0
			err = e.receive(ps)
		}
		if time.Since(began) > time.Second {
			failures = 0
		}
		_ = ps.Close()

		m.mu.Lock()
		e.interrupted(err, failures == 0)
		m.exit()
		if failures > 0 {
			select {
			case <-time.After(min(backoff(failures), maxListenBackoff)):
			case <-m.quit.Done():
			}
		}
	}
}

// begin opens the connection with the grant channels that are wanted, and leaves
// the rest to sync.
func (e *events) begin(ps *redis.PubSub, limit time.Duration, last func()) error {
	m := e.s.m
	var c changes
	m.mu.Lock()
	for channel := range e.slots {
		c.add(channel, true)
	}
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(m.quit, limit)
	defer cancel()
	if err := ps.Ping(ctx); err != nil { // connects
		return err
	}
	last()
	if err := c.grants(once, ps, m.topology != nil); err != nil {
		return err
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	e.open, e.checked = true, false
	clear(e.changed)
	joined := make(map[string]bool)
	for _, channel := range c.join {
		joined[channel] = true
		if e.slots[channel] == nil {
			e.change(channel, false)
		}
	}
	for channel := range e.slots {
		if !joined[channel] {
			e.change(channel, true)
		}
	}
	for channel := range e.watched {
		e.change(channel, true)
	}
	return nil
}

// interrupted: nothing arrives any more. The caller holds m.mu.
func (e *events) interrupted(err error, first bool) {
	m := e.s.m
	e.pubsub, e.open = nil, false
	e.s.doubt() // the next connection may lead to another server
	for _, sl := range e.slots {
		sl.ready = false
	}
	e.on = false
	e.refusals.end()
	if m.quorum != nil {
		e.deaf()
	}
	if m.closed || e.unused() {
		return
	}
	m.topology.unsettled(m)
	if first {
		m.warn("subscription interrupted", "error", err)
	}
	switch classify(err) {
	case final:
		for _, sl := range e.slots {
			m.refuseWaiters(sl, err)
		}
	case clientEnded: // perhaps: a request will tell
		for _, sl := range e.slots {
			for _, ln := range sl.lines {
				m.look(ln)
			}
		}
	}
}

var errUnused = errors.New("nothing to listen for")

// receive takes in messages until the connection fails or goes silent.
func (e *events) receive(ps *redis.PubSub) error {
	m := e.s.m
	up, pinged := false, false
	for {
		timeout := idleBeforePing
		switch {
		case !up:
			timeout = e.within(beginTimeout)
		case pinged:
			timeout = e.within(pongTimeout)
		}
		msg, err := ps.ReceiveTimeout(once, timeout)
		var slow net.Error
		switch {
		case err == nil:
			e.heard.Add(1)
			pinged = false
		case errors.As(err, &slow) && slow.Timeout():
			if pinged || !up {
				return fmt.Errorf("subscription is silent: %w", err)
			}
			m.mu.Lock()
			unused := e.unused()
			e.probeAll(time.Now())
			m.exit()
			if unused {
				return errUnused
			}
			// The health check of PubSub.Channel would be content with having
			// sent the ping.
			if err := ps.Ping(once); err != nil {
				return err
			}
			pinged = true
			continue
		case classify(err) == elsewhere:
			up = true
			e.misplaced(err)
			continue
		case up && classify(err) == unready:
			// Somebody's script runs for long: it will do later. The connection is well, and
			// those who stand in a line must not seem to have gone.
			pinged = false
			time.AfterFunc(maxBackoff, func() { e.resubscribe(ps) })
			continue
		case up && isForbidden(err, "ping"):
			pinged = false
			continue
		case (up || m.quorum != nil) && classify(err) == final && isForbidden(err, ""):
			// The grant channel was allowed, so this is about keyspace events. A quorum
			// has no grants.
			up = true
			e.forbidden(ps, err)
			continue
		case m.topology != nil && isUnknown(err, "ssubscribe"):
			return fmt.Errorf("a cluster needs Redis 7.0 or newer, which has sharded channels: %w", err)
		default:
			return err
		}

		switch msg := msg.(type) {
		case *redis.Subscription:
			if msg.Kind == "subscribe" || msg.Kind == "ssubscribe" {
				up = true
				if err := e.subscribed(msg.Channel); err != nil {
					return err
				}
			} else {
				e.unsubscribed(msg.Channel)
			}
		case *redis.Message:
			if strings.HasPrefix(msg.Channel, grantChannel) {
				if key, ok := strings.CutPrefix(msg.Payload, "look "); ok {
					e.passedOver(msg.Channel, key)
				} else {
					e.granted(msg.Payload)
				}
			} else {
				e.event(msg.Channel, msg.Payload, freeing[msg.Payload])
			}
		}
	}
}

// resubscribe asks again for what may have been refused.
func (e *events) resubscribe(ps *redis.PubSub) {
	e.s.m.mu.Lock()
	defer e.s.m.exit()
	if e.pubsub != ps {
		return // begin asks for all
	}
	for channel, sl := range e.slots {
		if !sl.ready {
			e.change(channel, true)
		}
	}
	for channel := range e.watched {
		e.change(channel, true)
	}
}

// subscribed: from here on messages of the channel arrive. Those before may have
// been missed.
func (e *events) subscribed(channel string) error {
	m := e.s.m
	m.mu.Lock()
	defer m.exit()
	sl := e.slots[channel]
	switch {
	case m.quorum != nil:
		e.watching(channel)
	case sl == nil:
		e.look(channel)
	case sl.ready:
		return errors.New("subscription was renewed unasked")
	default:
		sl.ready, sl.readyAt = true, time.Now()
		sl.doubt()
		m.probe(sl)
		for _, ln := range sl.lines {
			m.look(ln)
			m.pump(ln, time.Now())
		}
	}
	return nil
}

// unsubscribed: the channel has been left, or its slot has left the server.
func (e *events) unsubscribed(channel string) {
	m := e.s.m
	m.mu.Lock()
	defer m.exit()
	if sl := e.slots[channel]; sl != nil {
		e.astray(sl)
	}
}

// misplaced takes in that a slot is not the server's: "MOVED slot address".
func (e *events) misplaced(err error) {
	m := e.s.m
	m.mu.Lock()
	defer m.exit()
	var number uint16
	if _, scanned := fmt.Sscanf(err.Error(), "MOVED %d ", &number); scanned != nil {
		return
	}
	if sl := m.slots[number]; sl != nil && e.slots[sl.channel] == sl {
		e.astray(sl)
	}
}

// astray has the slot looked for elsewhere. The caller holds m.mu.
func (e *events) astray(sl *slot) {
	e.s.m.unlisten(sl)
	e.s.m.topology.unsettled(e.s.m)
}

// granted takes in a message on a grant channel.
func (e *events) granted(message string) {
	m := e.s.m
	g, err := decodeGrant(message)
	if err != nil {
		m.log.Warn("redislock: grant message not understood", "error", err)
		return
	}
	m.mu.Lock()
	defer m.exit()
	if !m.closed {
		m.grantedElsewhere(g, e.s, time.Now())
	}
}

// passedOver takes in that a waiter here was skipped, or a line left alone, since the
// server that serves the key does not hear this manager: the message has come by way
// of one of its replicas.
func (e *events) passedOver(channel, key string) {
	m := e.s.m
	m.mu.Lock()
	defer m.exit()
	sl := e.slots[channel]
	if sl == nil || m.closed {
		return
	}
	sl.doubt()
	m.probe(sl)
	if ln := sl.lines[key]; ln != nil {
		m.look(ln)
	}
}

// refuseWaiters fails those who cannot wait because grants cannot arrive.
func (m *LockManager) refuseWaiters(sl *slot, err error) {
	for _, ln := range sl.lines {
		for l := ln.unsent; l != nil; l = ln.unsent {
			m.abandon(l, err)
		}
	}
}
