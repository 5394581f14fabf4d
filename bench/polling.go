package main

import "time"

// What those have in common that wait by trying again, through go-redis.

// pollingCandidates are the settings that were tried.
var pollingCandidates = []settings{
	{pool: 20, poll: 1 * time.Millisecond}, {pool: 20, poll: 2 * time.Millisecond}, {pool: 20, poll: 5 * time.Millisecond},
	{pool: 64, poll: 5 * time.Millisecond}, {pool: 256, poll: 5 * time.Millisecond},
}

const whyPolling = "Pools of 20, 64 and 256 connections, and 1, 2 and 5 ms were tried for every shape. " +
	"The fewer tries, the more locks a second, as who has just released a key takes it again before the others look; " +
	"beyond 5 ms it is not one lock for many any more. Parked waiters that try every 5 ms would occupy the machine without end."

// bestPolling returns the best settings found.
func bestPolling(u use) settings {
	switch {
	case u.parked:
		return settings{poll: 100 * time.Millisecond}
	case u.contended():
		return settings{pool: 64, poll: 5 * time.Millisecond}
	}
	return settings{pool: 20, poll: 5 * time.Millisecond} // go-redis' default pool, on two cores
}
