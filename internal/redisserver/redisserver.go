// Package redisserver runs redis-servers of one's own: for tests (which use it by
// way of redistest), for the chaos run, and for benchmarks.
package redisserver

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Options say how to start a redis-server.
type Options struct {
	Dir  string   // a folder that exists, for its files
	Args []string // further arguments, such as "--appendonly", "yes"; without any, nothing is persistent
	Env  []string // further environment, such as "LD_PRELOAD=clock.so"
}

// Server is a redis-server on the loopback interface. It ends with the process
// that started it, at the latest.
type Server struct {
	Options        // may be changed between Kill and Run
	Addr    string // stays the same

	cmd    *exec.Cmd
	gone   chan struct{} // closed when it has ended
	config string        // a file that it rewrites when it is told whom to follow; may be empty
	begin  func() error  // what Run does when the server answers; may be nil
}

// Start runs a redis-server on a free port.
func Start(o Options) (*Server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := &Server{Options: o, Addr: addr}
	return s, s.Run()
}

// Run starts the server again, on the same address, after Kill. It returns when
// the server answers.
func (s *Server) Run() error {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return errors.New("redis-server is missing; install it with: apt-get update && apt-get install -y redis-server")
	}
	dir, err := filepath.Abs(s.Dir)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	logfile := filepath.Join(dir, "redis.log")
	args := append([]string{
		"--port", port, "--bind", host, "--dir", dir, "--save", "", "--logfile", logfile,
	}, s.Args...)
	if s.config != "" {
		args = append([]string{s.config}, args...) // has to come first
	}
	s.cmd = exec.Command("redis-server", args...)
	s.cmd.Env = append(os.Environ(), s.Env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// Of an argument that it does not know it tells before it has a log.
	var output strings.Builder
	s.cmd.Stdout, s.cmd.Stderr = &output, &output
	s.cmd.WaitDelay = time.Second // a child that saves may outlive it
	if err := s.cmd.Start(); err != nil {
		return err
	}
	cmd, gone := s.cmd, make(chan struct{})
	s.gone = gone
	go func() {
		_ = cmd.Wait()
		close(gone)
	}()
	for deadline := time.After(patience); ; {
		if err = s.ping(); err == nil {
			if s.begin != nil {
				return s.begin()
			}
			return nil
		}
		select {
		case <-s.gone:
			err = errors.New(cmd.ProcessState.String())
		case <-deadline:
		case <-time.After(2 * time.Millisecond):
			continue
		}
		s.Kill()
		log, _ := os.ReadFile(logfile)
		return fmt.Errorf("redis-server on %s does not answer: %w\n%s%s", s.Addr, err, output.String(), log)
	}
}

// ping tells whether the server answers, and has read its files.
func (s *Server) ping() error {
	conn, err := net.DialTimeout("tcp", s.Addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(answer, "+PONG") && !strings.HasPrefix(answer, "-NOAUTH") {
		err = errors.New(strings.TrimSpace(answer))
	}
	return err
}

// Pid is the process ID of the server.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Kill ends the server as kill -9 does, and waits until it is gone.
func (s *Server) Kill() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Kill()
		<-s.gone
	}
}

// Freeze stops the server in its tracks, its connections open, until Thaw.
func (s *Server) Freeze() error { return Stop(s.cmd.Process) }

// Thaw ends Freeze.
func (s *Server) Thaw() error { return s.cmd.Process.Signal(syscall.SIGCONT) }

// Stop sends SIGSTOP, and returns when every thread of the process has stopped.
func Stop(process *os.Process) error {
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for range 5000 {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", process.Pid))
		if err != nil {
			return err
		}
		running := slices.ContainsFunc(threads, func(thread string) bool {
			stat, err := os.ReadFile(thread)
			return err == nil && !strings.Contains(string(stat), ") T ")
		})
		if !running {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("the process does not stop")
}
