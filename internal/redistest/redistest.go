// Package redistest starts redis-servers for tests: each on a free port of the
// loopback interface, with its files in a temporary folder, and gone with the
// test.
package redistest

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock/internal/redisserver"
)

// Server is a redis-server of the test's own.
type Server struct {
	Addr string

	t      testing.TB
	server *redisserver.Server
}

// Start starts a redis-server without persistence. args are further arguments of
// redis-server, such as "--appendonly", "yes".
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	watch(t)
	server, err := redisserver.Start(redisserver.Options{Dir: t.TempDir(), Args: args})
	must(t, err)
	t.Cleanup(server.Kill)
	return &Server{t: t, server: server, Addr: server.Addr}
}

// limit is for a test that uses a server, on a machine ever so busy.
const limit = 5 * time.Minute

// watch ends the process if the test hangs, and shows where all goroutines are.
func watch(t testing.TB) {
	if _, ok := t.(*testing.T); !ok {
		return // a benchmark takes as long as it is told to
	}
	timer := time.AfterFunc(limit, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("test timed out: %s has run for %v", t.Name(), limit))
	})
	t.Cleanup(func() { timer.Stop() })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Run starts the server again, on the same address, after Kill.
func (s *Server) Run() {
	s.t.Helper()
	must(s.t, s.server.Run())
}

// Kill ends the server as kill -9 does, and waits until it is gone.
func (s *Server) Kill() { s.server.Kill() }

// Freeze stops the server in its tracks, its connections open, until Thaw.
func (s *Server) Freeze() {
	s.t.Helper()
	must(s.t, s.server.Freeze())
}

// Thaw ends Freeze.
func (s *Server) Thaw() {
	s.t.Helper()
	must(s.t, s.server.Thaw())
}

// Stop sends SIGSTOP, and returns when every thread of the process has stopped.
func Stop(t testing.TB, process *os.Process) {
	t.Helper()
	must(t, redisserver.Stop(process))
}

// Client returns a client of the server that is closed with the test. change, if
// not nil, may change its options.
func (s *Server) Client(change func(*redis.Options)) *redis.Client {
	options := &redis.Options{Addr: s.Addr}
	if change != nil {
		change(options)
	}
	client := redis.NewClient(options)
	s.t.Cleanup(func() { client.Close() })
	return client
}

// Stat returns a number that INFO names, such as total_commands_processed.
func (s *Server) Stat(client *redis.Client, name string) int64 {
	s.t.Helper()
	values, err := client.InfoMap(context.Background()).Result()
	must(s.t, err)
	for _, section := range values {
		if text, ok := section[name]; ok {
			var n int64
			_, err := fmt.Sscan(text, &n)
			must(s.t, err)
			return n
		}
	}
	s.t.Fatalf("INFO has no %s", name)
	return 0
}
