// Package history records what the processes of a chaos run did and saw, and
// checks it against the guarantees of the library.
package history

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/redislock/redislock"
)

// Kind says what an event is about.
type Kind string

const (
	// Of a worker, about one acquisition. "Before" and "after" tell on which
	// side of the call the event was recorded, so that a process that is killed
	// in between leaves what it may have done.
	Call     Kind = "call"     // before Lock, TryLock or Do: Key, TTL, Method, Manager, Renew
	Cancel   Kind = "cancel"   // before the caller's context is cancelled, or the manager closed
	Granted  Kind = "granted"  // after: acquired; Token, ValidUntil
	Failed   Kind = "failed"   // after: not acquired; Err
	Valid    Kind = "valid"    // ValidUntil was seen to have moved on
	Extend   Kind = "extend"   // before Extend: TTL
	Extended Kind = "extended" // after: Err, ValidUntil
	Write    Kind = "write"    // before a write to the guarded resource: Token
	Written  Kind = "written"  // after: Accepted, or Err if there was no answer
	Unlock   Kind = "unlock"   // before Unlock
	Unlocked Kind = "unlocked" // after: Err
	Done     Kind = "done"     // after Done was seen closed: Err is what Lock.Err said

	// Of a worker, about itself.
	Stall  Kind = "stall"  // the process did not run for Took before this moment
	Cut    Kind = "cut"    // requests got no answer: Err; what they did to Redis is not known to the process
	Closed Kind = "closed" // after Close of all managers and clients: Goroutines of the library that are left

	// Of the guarded resource.
	Accepted Kind = "accepted" // a write: Key, Op, Token
	Refused  Kind = "refused"  // a write whose token was too low: Key, Op, Token, Highest

	// Of the controller.
	Killed  Kind = "killed"  // a process, with kill -9: Process
	Stopped Kind = "stopped" // a process, with SIGSTOP: Process
	Resumed Kind = "resumed" // a process, with SIGCONT: Process
	Fault   Kind = "fault"   // anything done to Redis or the network: Name
	Healed  Kind = "healed"  // no fault is in force from here on
)

// An Event is something that one process did or saw.
type Event struct {
	At      int64  `json:"at"` // CLOCK_MONOTONIC, ns: one clock for all processes of the machine
	Process string `json:"process"`
	Kind    Kind   `json:"kind"`
	Op      string `json:"op,omitempty"` // the owner value: names the acquisition in every log and in Redis
	Key     string `json:"key,omitempty"`

	Method  string `json:"method,omitempty"`  // Call: "lock", "try" or "do"
	Manager int    `json:"manager,omitempty"` // Call: which of the process's managers
	TTL     int64  `json:"ttl,omitempty"`     // Call, Extend: ns
	Renew   bool   `json:"renew,omitempty"`   // Call: renewed by the library

	Token      int64  `json:"token,omitempty"`
	Highest    int64  `json:"highest,omitempty"`
	ValidUntil int64  `json:"validUntil,omitempty"` // CLOCK_MONOTONIC, ns
	Accepted   bool   `json:"accepted,omitempty"`
	Err        string `json:"err,omitempty"`  // the message
	Is         string `json:"is,omitempty"`   // which sentinels it is, e.g. "lost notheld", see Sentinels
	Took       int64  `json:"took,omitempty"` // ns
	Goroutines int    `json:"goroutines,omitempty"`
	Name       string `json:"name,omitempty"`
	Target     string `json:"target,omitempty"` // Fault: what the processes that it is aimed at begin with; empty: all
}

// Now reads CLOCK_MONOTONIC, which all processes of a machine share.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// reading is one of both clocks.
type reading struct {
	at   time.Time
	mono int64 // never later than the truth
}

// bothClocks returns the readings that lay closest together: the process may be
// put aside between two.
func bothClocks() (best reading) {
	closest := int64(1 << 62)
	for range 1000 {
		before := Now()
		at := time.Now()
		if gap := Now() - before; gap < closest {
			closest, best = gap, reading{at, before}
		}
	}
	return best
}

// base relates the monotonic part of time.Time to CLOCK_MONOTONIC.
var base = bothClocks()

// WallMinusMono returns the wall clock less CLOCK_MONOTONIC, in ns.
func WallMinusMono() int64 {
	now := bothClocks()
	return now.at.UnixNano() - now.mono
}

// Monotonic turns a time with a monotonic reading into CLOCK_MONOTONIC.
func Monotonic(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return base.mono + int64(t.Sub(base.at))
}

// A Log writes events to a file, each with one write, so that what was written
// survives kill -9 of the process.
type Log struct {
	process string
	mu      sync.Mutex
	file    *os.File
}

// Create begins the log of a process.
func Create(path, process string) (*Log, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	return &Log{process: process, file: file}, nil
}

// Add writes the event, of this moment if it has no time of its own. Logging
// takes a moment itself: what is done after Add is later than At, what was done
// before Add is earlier.
func (l *Log) Add(e Event) {
	if e.At == 0 {
		e.At = Now()
	}
	if e.Process == "" {
		e.Process = l.process
	}
	line, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		panic(err)
	}
}

// Close ends the log.
func (l *Log) Close() error { return l.file.Close() }

// Read reads the log of a process. A last line that was cut off by the end of
// the process is left out.
func Read(path string) ([]Event, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var events []Event
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return events, nil
		}
		if err != nil {
			return nil, err
		}
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", path, line, err)
		}
		events = append(events, e)
	}
}

// Sentinels names the library's errors that err is.
func Sentinels(err error) string {
	var names []string
	for _, one := range []struct {
		name string
		err  error
	}{
		{"canceled", context.Canceled}, {"deadline", context.DeadlineExceeded},
		{"notacquired", redislock.ErrNotAcquired}, {"notheld", redislock.ErrNotHeld}, {"lost", redislock.ErrLost},
		{"released", redislock.ErrReleased}, {"closed", redislock.ErrClosed}, {"queuefull", redislock.ErrQueueFull},
		{"invalid", redislock.ErrInvalidArgument},
	} {
		if errors.Is(err, one.err) {
			names = append(names, one.name)
		}
	}
	return strings.Join(names, " ")
}
