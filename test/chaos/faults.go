package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redislock/redislock/test/check"
	"github.com/redislock/redislock/test/history"
)

// A fault is something that goes wrong. inject does it once, and returns when it
// is over.
type fault struct {
	name string
	// Redis forgets, or its clock lies: a key may be given to a second holder.
	// The rest of the promises stands.
	second       check.SecondClass
	on           string // which kind of site; default: single
	replaces     bool   // masters, as soon as they seem to be gone
	ofServers    bool   // it is done to servers
	still        bool   // which answer nobody meanwhile
	crash        bool   // the workers kill themselves at a step of their conversation with Redis
	movableClock bool
	inject       func(*episode)
}

// kinds are those of sites, and how the names of faults on them begin.
var kinds = []struct{ kind, prefix string }{
	{single, ""}, {address, "one address: "}, {sentinel, "Sentinel: "}, {cluster, "Cluster: "}, {quorum, "quorum: "},
}

// faults returns all that there are. Those marked with a class come last on each kind
// of site; with all others every promise has to hold.
func faults() (all []fault) {
	idle := func(*episode) { time.Sleep(100 * time.Millisecond) }
	// What can go wrong anywhere.
	anywhere := []fault{
		{name: "stop a process for longer than a TTL", inject: stopProcess},
		{name: "latency", inject: latency},
		{name: "black hole", inject: func(e *episode) { e.hole(true, true) }},
		{name: "connections reset", inject: reset},
		{name: "half-open connections", inject: halfOpen},
		{name: "executed, then cut", inject: loseReplies},
	}
	for _, f := range ofServers {
		anywhere = append(anywhere, fault{name: f.name, ofServers: true, still: f.still, inject: f.onAll})
	}
	// What is the same everywhere: on one server each is a fault of its own, on other
	// sites they happen amid others.
	besides := []fault{
		{name: "kill -9 of the holder", inject: func(e *episode) { e.kill("holder") }},
		{name: "kill -9 of the head of the line", inject: func(e *episode) { e.kill("head") }},
		{name: "kill -9 of a waiter", inject: func(e *episode) { e.kill("waiter") }},
		{name: "requests get lost", inject: func(e *episode) { e.hole(true, false) }},
		{name: "replies get lost", inject: func(e *episode) { e.hole(false, true) }},
		{name: "a foreign locker", inject: foreign},
	}
	for _, f := range ofServersBesides {
		besides = append(besides, fault{name: f.name, ofServers: true, still: f.still, inject: f.onAll})
	}
	for _, on := range kinds {
		var own []fault
		mixed := append(slices.Clone(anywhere), besides...)
		if on.kind == single {
			mixed = append(mixed, fault{name: "kill -9 of Redis, restart with AOF", inject: func(e *episode) { e.restart(true) }})
			own = append(own, fault{name: "none", inject: idle})
			own = append(own, mixed...)
			own = append(own, fault{name: "kill -9 of oneself at any step", crash: true, inject: idle})
		} else {
			own = slices.Clone(anywhere)
		}
		own = append(own, fault{name: "all of these, two at a time", inject: func(e *episode) {
			var both sync.WaitGroup
			for range 2 {
				one := mixed[e.below(int64(len(mixed)))]
				both.Go(func() { one.inject(e) })
			}
			both.Wait()
		}})
		switch on.kind {
		case single:
			own = append(own,
				fault{name: "FLUSHALL", second: check.SecondClass{Flush: true}, inject: flush},
				fault{name: "kill -9 of Redis, restart empty", second: check.SecondClass{Restart: true}, inject: func(e *episode) { e.restart(false) }},
				fault{name: "eviction", second: check.SecondClass{Eviction: true}, inject: evict},
				fault{name: "the server's clock jumps", second: check.SecondClass{ClockJump: true}, movableClock: true, inject: moveClock},
			)
		case quorum:
			own = append(own, fault{name: "faults of one node", inject: func(e *episode) { e.site.(*quorumSite).hurt(e) }})
		default:
			own = append(own, failovers(mixed)...)
			if on.kind == cluster {
				own = append(own, moves(mixed)...)
			}
		}
		for _, f := range own {
			f.name, f.on = on.prefix+f.name, on.kind
			all = append(all, f)
		}
	}
	return all
}

// nobody is the target of a fault that touches no connection.
const nobody = "nobody"

// count records that a fault begins, and whom it is aimed at: processes whose
// names begin with target, all if it is empty.
func (e *episode) count(name, target string) {
	e.log.Add(history.Event{Kind: history.Fault, Name: name, Target: target})
	e.mu.Lock()
	defer e.mu.Unlock()
	e.injected[name]++
}

func (e *episode) key() string {
	keys := e.site.keys()
	return keys[e.below(int64(len(keys)))]
}

// victim returns the process that holds a key, or one whose caller waits for it,
// or nil if there is none just now.
func (e *episode) victim(role string) *process {
	ctx := context.Background()
	key := e.key()
	master := e.site.master(key).admin
	if role == "holder" {
		return e.owner(master.Get(ctx, key).Val())
	}
	// A member is manager:ttl:seq:value.
	members := master.ZRange(ctx, "redislock:queue:{"+key+"}", 0, -1).Val()
	if len(members) == 0 {
		return nil
	}
	at := int64(0)
	if role == "waiter" {
		at = e.below(int64(len(members)))
	}
	parts := strings.SplitN(members[at], ":", 4)
	return e.owner(parts[len(parts)-1])
}

func (e *episode) kill(role string) {
	if p := e.victim(role); p != nil {
		e.count("kill -9 of a "+role, p.name)
		_ = p.cmd.Process.Kill()
		<-p.gone
	}
}

func stopProcess(e *episode) {
	p := e.victim([]string{"holder", "head", "waiter"}[e.below(3)])
	if p == nil {
		return
	}
	e.count("SIGSTOP", p.name)
	e.log.Add(history.Event{Process: p.name, Kind: history.Stopped})
	if p.cmd.Process.Signal(syscall.SIGSTOP) != nil {
		return
	}
	time.Sleep(maxTTL/2 + e.upTo(maxTTL))
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	e.log.Add(history.Event{Process: p.name, Kind: history.Resumed})
}

// through changes the weather between one worker, or all of them, and Redis for a
// while.
func (e *episode) through(name string, w weather, while time.Duration) {
	slot := e.below(slots + 1)
	target, hit := "", e.proxies[:]
	if slot < slots {
		target, hit = fmt.Sprintf("w%d.", slot), hit[slot:slot+1]
	}
	e.count(name, target)
	forAWhile(hit, w, while)
}

func latency(e *episode) {
	e.through("latency", weather{delay: e.upTo(30 * time.Millisecond), jitter: 1 + e.upTo(30*time.Millisecond)}, 200*time.Millisecond+e.upTo(time.Second))
}

func (e *episode) hole(requests, replies bool) {
	e.through("black hole", weather{dropRequests: requests, dropReplies: replies, refuse: e.below(2) == 0}, 50*time.Millisecond+e.upTo(2*maxTTL))
}

func loseReplies(e *episode) {
	e.through("lost replies", weather{loseReply: 0.05}, 100*time.Millisecond+e.upTo(500*time.Millisecond))
}

func reset(e *episode) {
	slot := e.below(slots)
	e.count("reset", fmt.Sprintf("w%d.", slot))
	e.proxies[slot].reset()
}

// halfOpen has connections go silent, as after a router forgot them. New ones are served.
func halfOpen(e *episode) {
	slot := e.below(slots)
	e.count("half-open connections", fmt.Sprintf("w%d.", slot))
	for _, p := range e.proxies[slot] {
		p.forget()
	}
}

func flush(e *episode) {
	e.count("FLUSHALL", "")
	e.server.admin.FlushAll(context.Background())
}

// restart kills Redis and starts it again, with what it remembers or with nothing.
func (e *episode) restart(remember bool) {
	e.power.Lock()
	defer e.power.Unlock()
	e.count("restart of Redis", "")
	e.server.Kill()
	if !remember {
		var err error
		if e.server.Dir, err = e.server.begin(); err != nil {
			e.complain("%v", err)
		}
	}
	time.Sleep(e.upTo(500 * time.Millisecond))
	if err := e.server.Run(); err != nil {
		e.complain("%v", err)
	}
}

// foreign takes and releases a key as any locker does that knows nothing of this
// library.
func foreign(e *episode) {
	ctx, key := context.Background(), e.key()
	admin := e.site.master(key).admin
	value := fmt.Sprintf("foreign:%d", e.below(1<<62))
	for range 200 {
		if admin.SetNX(ctx, key, value, minTTL+e.upTo(maxTTL-minTTL)).Val() {
			e.count("foreign lock", nobody)
			time.Sleep(e.upTo(100 * time.Millisecond))
			if e.below(5) > 0 {
				admin.Eval(ctx, "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end", []string{key}, value)
			}
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// evict has Redis run short of memory until it throws keys away.
func evict(e *episode) {
	ctx, admin := context.Background(), e.server.admin
	e.count("eviction", "")
	admin.ConfigSet(ctx, "maxmemory-policy", "allkeys-random")
	used := int64(0)
	for _, section := range admin.InfoMap(ctx, "memory").Val() {
		fmt.Sscan(section["used_memory"], &used)
	}
	admin.ConfigSet(ctx, "maxmemory", fmt.Sprint(used+64<<10))
	for i := range 20 {
		admin.Set(ctx, fmt.Sprintf("filler-%d", i), strings.Repeat("x", 8<<10), 0)
		time.Sleep(10 * time.Millisecond)
	}
	admin.ConfigSet(ctx, "maxmemory", "0")
	for i := range 20 {
		admin.Del(ctx, fmt.Sprintf("filler-%d", i))
	}
}

func moveClock(e *episode) {
	jump := e.upTo(4*maxTTL) - 2*maxTTL
	e.count("clock jump", "")
	if err := e.server.setClock(jump); err != nil {
		e.complain("clock: %v", err)
	}
	time.Sleep(e.upTo(maxTTL))
}
