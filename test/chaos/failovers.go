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
	outlive(e *episode, stands bool) // the master lives on, and believes that it is one
}

// outlived names the faults after which a master that was replaced goes on.
var outlived = map[bool]string{true: "master stopped until it is replaced", false: "master that does not know that it was replaced"}

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
	outlive := func(stands bool) func(*episode) {
		return func(e *episode) {
			e.count(outlived[stands], "")
			e.site.(failingOver).outlive(e, stands)
		}
	}
	lost := check.SecondClass{Failover: true}
	return []fault{
		{name: "planned failover", replaces: true, inject: handOver},
		{name: "planned failover amid other faults", replaces: true, inject: amid},
		{name: "kill -9 of the master", replaces: true, second: lost, inject: func(e *episode) { e.site.(failingOver).kill(e) }},
		{name: outlived[true], replaces: true, second: lost, inject: outlive(true)},
		{name: outlived[false], replaces: true, second: lost, inject: outlive(false)},
	}
}

// must complains of what should have worked.
func (e *episode) must(err error) {
	if err != nil {
		e.complain("%v", err)
		e.log.Add(history.Event{Kind: history.Fault, Name: err.Error(), Target: nobody})
	}
}
