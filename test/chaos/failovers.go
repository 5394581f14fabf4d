package main

import (
	"slices"
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

// failovers are what befalls sites of several servers, also amid other faults. A server
// that stands still cannot take part in one.
func failovers(others []fault) []fault {
	others = slices.DeleteFunc(slices.Clone(others), func(f fault) bool { return f.still })
	handOver := func(e *episode) { e.site.(failingOver).handOver(e) }
	amid := func(e *episode) {
		var both sync.WaitGroup
		both.Go(func() {
			others[e.below(int64(len(others)))].inject(e)
		})
		handOver(e)
		both.Wait()
	}
	return []fault{
		{name: "planned failover", replaces: true, inject: handOver},
		{name: "planned failover amid other faults", replaces: true, inject: amid},
		{name: "kill -9 of the master", replaces: true, second: check.SecondClass{Failover: true},
			inject: func(e *episode) { e.site.(failingOver).kill(e) }},
	}
}

// must complains of what should have worked.
func (e *episode) must(err error) {
	if err != nil {
		e.complain("%v", err)
		e.log.Add(history.Event{Kind: history.Fault, Name: err.Error(), Target: nobody})
	}
}
