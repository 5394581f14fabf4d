// Package redistest starts redis-servers for tests: each on a free port of the
// loopback interface, with its files in a temporary folder, and gone with the
// test.
package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Server is a redis-server of the test's own.
type Server struct {
	Addr string

	t    testing.TB
	dir  string
	args []string
	cmd  *exec.Cmd
}

// Start starts a redis-server without persistence. args are further arguments of
// redis-server, such as "--appendonly", "yes".
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server is missing; install it with: apt-get update && apt-get install -y redis-server")
	}
	s := &Server{t: t, dir: t.TempDir(), args: args, Addr: freeAddr(t)}
	s.Run()
	t.Cleanup(s.Kill)
	return s
}

// freeAddr returns a loopback address nobody listened on a moment ago.
func freeAddr(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// Run starts the server again, on the same address, after Kill.
func (s *Server) Run() {
	s.t.Helper()
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		s.t.Fatal(err)
	}
	logfile := filepath.Join(s.dir, "redis.log")
	s.cmd = exec.Command("redis-server", append([]string{
		"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--logfile", logfile,
	}, s.args...)...)
	// A test binary that is killed takes its servers along.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for range 1000 {
		conn, err := net.Dial("tcp", s.Addr)
		if err == nil {
			conn.Close()
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	text, _ := os.ReadFile(logfile)
	s.t.Fatalf("redis-server does not listen on %s:\n%s", s.Addr, text)
}

// Kill ends the server as kill -9 does, and waits until it is gone.
func (s *Server) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Freeze stops the server in its tracks, its connections open, until Thaw.
func (s *Server) Freeze() { Stop(s.t, s.cmd.Process) }

// Thaw ends Freeze.
func (s *Server) Thaw() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		s.t.Fatal(err)
	}
}

// Stop sends SIGSTOP, and returns when every thread of the process has stopped.
func Stop(t testing.TB, process *os.Process) {
	t.Helper()
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		running := slices.ContainsFunc(threads, func(thread string) bool {
			stat, err := os.ReadFile(thread)
			return err == nil && !strings.Contains(string(stat), ") T ")
		})
		if !running {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the process does not stop")
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
	if err != nil {
		s.t.Fatal(err)
	}
	for _, section := range values {
		if text, ok := section[name]; ok {
			var n int64
			if _, err := fmt.Sscan(text, &n); err != nil {
				s.t.Fatal(err)
			}
			return n
		}
	}
	s.t.Fatalf("INFO has no %s", name)
	return 0
}
