package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock/internal/redisserver"
	"github.com/redislock/redislock/test/history"
)

// A node is a server that has keys, or a replica of one.
type node struct {
	*redisserver.Server
	admin *redis.Client
}

// A serverFault is done to some of a site's servers by their administrator, or to their
// processes. inject does it once, and undoes it.
type serverFault struct {
	name   string
	all    bool // replicas too
	still  bool // the server answers nobody meanwhile
	inject func(e *episode, hit []node)
}

// ofServers are faults of their own on each kind of site.
var ofServers = []serverFault{
	{name: "rights taken away", all: true, inject: takeRights},
	{name: "password rotated", all: true, inject: rotate},
	{name: "CLIENT PAUSE", still: true, inject: pause},
	{name: "pattern subscribers", all: true, inject: onlookers},
	{name: "out of memory", inject: outOfMemory},
	{name: "busy script", still: true, inject: busy},
}

// ofServersBesides are so on a single server.
var ofServersBesides = []serverFault{
	{name: "CLIENT KILL pubsub", inject: func(e *episode, hit []node) { e.killConnections("pubsub", hit) }},
	{name: "CLIENT KILL normal", inject: func(e *episode, hit []node) { e.killConnections("normal", hit) }},
	{name: "DEBUG SLEEP", still: true, inject: debugSleep},
	{name: "Redis stopped (SIGSTOP)", still: true, inject: freeze},
	{name: "notifications switched off", inject: silence},
	{name: "SCRIPT FLUSH", inject: scriptFlush},
}

// onAll does it to all of a site's servers.
func (f serverFault) onAll(e *episode) {
	if f.all {
		f.inject(e, e.site.nodes())
	} else {
		f.inject(e, e.site.masters())
	}
}

// tell has a server do something. It may be of no avail, as the server may be down.
func (n node) tell(args ...any) error { return n.admin.Do(context.Background(), args...).Err() }

// undo tells a server until it has done it: it may be down just now, or its connections
// are being cut.
func (e *episode) undo(n node, args ...any) {
	e.must(until(fmt.Sprint(args...), func(context.Context) error { return n.tell(args...) }))
}

// each does something to all of the servers at once.
func each(hit []node, do func(node)) {
	var all sync.WaitGroup
	for _, n := range hit {
		all.Go(func() { do(n) })
	}
	all.Wait()
}

// still records that a server answers nobody while something is done to it.
func (e *episode) still(n node, do func()) {
	name := "redis at " + n.Addr
	e.log.Add(history.Event{Process: name, Kind: history.Stopped})
	do()
	e.log.Add(history.Event{Process: name, Kind: history.Resumed})
}

// one returns one of the servers.
func (e *episode) one(hit []node) node { return hit[e.below(int64(len(hit)))] }

func (e *episode) killConnections(kind string, hit []node) {
	e.count("CLIENT KILL "+kind, "")
	each(hit, func(n node) { n.admin.ClientKillByFilter(context.Background(), "TYPE", kind, "SKIPME", "yes") })
}

func debugSleep(e *episode, hit []node) {
	e.count("DEBUG SLEEP", "")
	n := e.one(hit)
	e.still(n, func() { _ = n.tell("debug", "sleep", (e.upTo(maxTTL*3/2) + 50*time.Millisecond).Seconds()) })
}

func freeze(e *episode, hit []node) {
	e.power.Lock()
	defer e.power.Unlock()
	e.count("SIGSTOP of Redis", "")
	n := e.one(hit)
	e.still(n, func() {
		e.must(n.Freeze())
		time.Sleep(50*time.Millisecond + e.upTo(maxTTL*3/2))
		e.must(n.Thaw())
	})
}

func silence(e *episode, hit []node) {
	e.count("notifications off", nobody)
	each(hit, func(n node) { _ = n.tell("config", "set", "notify-keyspace-events", foreignFlags) })
}

func scriptFlush(e *episode, hit []node) {
	e.count("SCRIPT FLUSH", nobody)
	each(hit, func(n node) { _ = n.tell("script", "flush") })
}

// pause has servers answer nobody, or only those who want to write nothing. They go on
// by themselves.
func pause(e *episode, hit []node) {
	mode := []string{"all", "write"}[e.below(2)]
	e.count("CLIENT PAUSE "+mode, "")
	while := 50*time.Millisecond + e.upTo(maxTTL*3/2)
	each(hit, func(n node) {
		e.still(n, func() {
			if n.tell("client", "pause", while.Milliseconds(), mode) == nil {
				time.Sleep(while)
			}
		})
	})
}

// onlookers has somebody listen to all channels while waiters die: they are dead all
// the same.
func onlookers(e *episode, hit []node) {
	ctx := context.Background()
	e.count("pattern subscriber", nobody)
	for _, n := range hit {
		ps := n.admin.PSubscribe(ctx, "*")
		defer ps.Close()
		if _, err := ps.Receive(ctx); err != nil {
			return // the server is not there
		}
		go func() {
			for range ps.Channel() { // until it is closed
			}
		}()
	}
	for range 1 + e.below(3) {
		time.Sleep(e.upTo(200 * time.Millisecond))
		e.kill("waiter")
	}
	time.Sleep(e.upTo(maxTTL))
}

// outOfMemory has servers refuse what needs memory.
func outOfMemory(e *episode, hit []node) {
	e.count("out of memory", "")
	each(hit, func(n node) { _ = n.tell("config", "set", "maxmemory-policy", "noeviction", "maxmemory", "1") })
	time.Sleep(50*time.Millisecond + e.upTo(maxTTL))
	each(hit, func(n node) { e.undo(n, "config", "set", "maxmemory", "0") })
}

// busy has one server run a script of somebody else's for so long that it answers
// BUSY. The script ends by itself, or is killed.
func busy(e *episode, hit []node) {
	const limit, script = 20 * time.Millisecond, `
		local function now() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end
		local begun = now()
		repeat until now() - begun > tonumber(ARGV[1])`
	n := e.one(hit)
	while := limit + 50*time.Millisecond + e.upTo(500*time.Millisecond)
	e.count("busy script", "")
	_ = n.tell("config", "set", "lua-time-limit", limit.Milliseconds())
	e.still(n, func() {
		if e.below(2) == 0 {
			_ = n.tell("eval", script, 0, while.Microseconds())
			return
		}
		var ends sync.WaitGroup
		ends.Go(func() { _ = n.tell("eval", script, 0, patience.Microseconds()) })
		time.Sleep(while)
		e.undo(n, "script", "kill")
		ends.Wait()
	})
	e.undo(n, "config", "set", "lua-time-limit", 5000)
}

// The workers are a user of their own.
const (
	workers       = "worker"
	firstPassword = "first"
	otherPassword = "other"
)

// users is the file with the users of a server that has just started.
const users = "user default on nopass ~* &* +@all\nuser " + workers + " on >" + firstPassword + " ~* &* +@all\n"

// rights are what a user may lose.
var rights = []struct {
	name string
	lose []any
}{
	{"channels", []any{"resetchannels"}},
	{"scripts", []any{"-eval", "-evalsha"}},
	{"side keys", []any{"resetkeys", "~chaos-*"}},
	{"SUBSCRIBE", []any{"-subscribe", "-ssubscribe"}},
	{"CONFIG", []any{"-config"}},
}

// takeRights takes a right away from the workers, and gives it back.
func takeRights(e *episode, hit []node) {
	right := rights[e.below(int64(len(rights)))]
	e.count("no right: "+right.name, "")
	cut := e.below(2) == 0
	each(hit, func(n node) {
		_ = n.tell(append([]any{"acl", "setuser", workers}, right.lose...)...)
		if cut {
			_ = n.tell("client", "kill", "user", workers)
		}
	})
	time.Sleep(50*time.Millisecond + e.upTo(maxTTL))
	each(hit, func(n node) { e.undo(n, "acl", "setuser", workers, "allkeys", "allchannels", "+@all") })
}

// rotate changes the password of the workers on some of the servers, and back. They
// learn of it at once, or late. The other servers take both.
func rotate(e *episode, hit []node) {
	e.rotation.Lock()
	defer e.rotation.Unlock()
	defer func() {
		each(e.site.nodes(), func(n node) { e.undo(n, "acl", "setuser", workers, "resetpass", ">"+firstPassword) })
	}()
	for _, change := range [][2]string{{firstPassword, otherPassword}, {otherPassword, firstPassword}} {
		before, now := change[0], change[1]
		late := e.upTo(400*time.Millisecond) * time.Duration(e.below(2))
		e.count("password rotated", "")
		each(e.site.nodes(), func(n node) { e.undo(n, "acl", "setuser", workers, "resetpass", ">"+before, ">"+now) })
		if late == 0 {
			e.must(e.publish(now))
		}
		each(hit, func(n node) {
			e.undo(n, "acl", "setuser", workers, "resetpass", ">"+now)
			_ = n.tell("client", "kill", "user", workers)
		})
		if late > 0 {
			time.Sleep(late)
			e.must(e.publish(now))
		}
		time.Sleep(e.upTo(maxTTL / 2))
	}
}

// publish tells all workers, those too that are yet to come, the password.
func (e *episode) publish(password string) error {
	next := e.password + ".next"
	if err := os.WriteFile(next, []byte(password), 0o600); err != nil {
		return err
	}
	return os.Rename(next, e.password)
}

// credentials returns who the workers are, by the file with their password.
func credentials(file string) func() (name, password string) {
	return func() (string, string) {
		password, err := os.ReadFile(file)
		if err != nil {
			panic(fmt.Sprint("the file with the password: ", err))
		}
		return workers, string(password)
	}
}
