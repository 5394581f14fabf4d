package main

import (
	"sync"
	"time"

	"github.com/redislock/redislock/test/check"
	"github.com/redislock/redislock/test/history"
)

// work has the workers work for a while, between two failovers that cost time.
func (e *episode) work() { time.Sleep(200*time.Millisecond + e.upTo(time.Second)) }

// A failingOver site has masters that are replaced.
type failingOver interface {
	handOver(*episode) // as planned: nothing is lost
	kill(*episode)
}

// failovers are what befalls sites of several servers.
func failovers() (all []fault) {
	handOver := func(e *episode) { e.site.(failingOver).handOver(e) }
	kill := func(e *episode) { e.site.(failingOver).kill(e) }
	amid := func(e *episode) {
		one := []func(*episode){
			latency, loseReplies, reset, stopProcess,
			func(e *episode) { e.hole(true, true) },
			func(e *episode) { e.kill("holder") },
			func(e *episode) { e.kill("head") },
		}[e.below(7)]
		var both sync.WaitGroup
		both.Go(func() { one(e) })
		handOver(e)
		both.Wait()
	}
	for _, on := range []struct{ kind, name string }{{address, "one address"}, {sentinel, "Sentinel"}, {cluster, "Cluster"}} {
		all = append(all,
			fault{name: on.name + ": planned failover", on: on.kind, inject: handOver},
			fault{name: on.name + ": planned failover amid other faults", on: on.kind, inject: amid},
			fault{name: on.name + ": kill -9 of the master", on: on.kind, second: check.SecondClass{Failover: true}, inject: kill},
		)
	}
	return append(all, fault{name: "quorum: faults of one node", on: quorum, inject: func(e *episode) { e.site.(*quorumSite).hurt(e) }})
}

// must complains of what should have worked.
func (e *episode) must(err error) {
	if err != nil {
		e.complain("%v", err)
		e.log.Add(history.Event{Kind: history.Fault, Name: err.Error(), Target: nobody})
	}
}
