package main

import (
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed preload/clock.c
var clockSource []byte

// foreignFlags are the notifications that somebody else has switched on.
const foreignFlags = "El$"

// A server is a redis-server that records all it does in its append-only file.
type server struct {
	addr  string
	dir   string
	lives []string // folders with append-only files, one for each database that began empty
	admin *redis.Client
	cmd   *exec.Cmd
	clock string // file with the offset of its clock, and the library that reads it
	shim  string
}

func startServer(dir string, movableClock bool) (*server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{addr: listener.Addr().String(), dir: dir}
	listener.Close()
	s.admin = redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1, ReadTimeout: 10 * time.Second})
	if movableClock {
		if err := s.buildClock(); err != nil {
			return nil, err
		}
	}
	s.begin()
	return s, s.run()
}

func (s *server) buildClock() error {
	source := filepath.Join(s.dir, "clock.c")
	s.shim, s.clock = filepath.Join(s.dir, "clock.so"), filepath.Join(s.dir, "clock")
	if err := os.WriteFile(source, clockSource, 0o644); err != nil {
		return err
	}
	if err := s.setClock(0); err != nil {
		return err
	}
	out, err := exec.Command("cc", "-shared", "-fPIC", "-O1", "-o", s.shim, source).CombinedOutput()
	if err != nil {
		return fmt.Errorf("a C compiler is needed to move the server's clock (apt-get install -y gcc libc6-dev): %w\n%s", err, out)
	}
	return nil
}

// setClock has the server's wall clock jump to offset from the true time.
func (s *server) setClock(offset time.Duration) error {
	file, err := os.OpenFile(s.clock, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(offset.Microseconds())), 0)
	return err
}

// begin has the next run start with an empty database.
func (s *server) begin() {
	s.lives = append(s.lives, filepath.Join(s.dir, "redis-"+strconv.Itoa(len(s.lives))))
}

// run starts the server on what its folder holds.
func (s *server) run() error {
	folder := s.lives[len(s.lives)-1]
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		return err
	}
	s.cmd = exec.Command("redis-server",
		"--port", port, "--bind", "127.0.0.1", "--dir", folder, "--logfile", filepath.Join(s.dir, "redis.log"),
		"--save", "", "--appendonly", "yes", "--aof-timestamp-enabled", "yes", "--aof-use-rdb-preamble", "no",
		// Written before each reply, and never moved about. What is written
		// survives kill -9 of the process, so fsync would add nothing.
		"--appendfsync", "no", "--auto-aof-rewrite-percentage", "0",
		// Expiry and eviction show as UNLINK, an owner's deletion as DEL.
		"--lazyfree-lazy-expire", "yes", "--lazyfree-lazy-eviction", "yes",
		"--enable-debug-command", "yes",
		"--notify-keyspace-events", foreignFlags,
	)
	if s.shim != "" {
		s.cmd.Env = append(os.Environ(), "LD_PRELOAD="+s.shim, "CHAOS_CLOCK="+s.clock)
	}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		err := s.admin.Ping(context.Background()).Err()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(s.dir, "redis.log"))
			return fmt.Errorf("redis-server does not answer: %w\n%s", err, log)
		}
	}
}

// kill ends the server as kill -9 does.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

func (s *server) close() {
	s.admin.Close()
	s.kill()
}
