package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/redislock/redislock/test/history"
)

// A process is a worker or the guarded resource.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser   // tells a worker that all is healed, and with its end to finish
	gone  chan struct{}    // closed when it has ended
	state *os.ProcessState // how, once gone
}

// startResource starts the guarded resource, which runs until killAll.
func (e *episode) startResource() error {
	cmd := exec.Command(os.Args[0], "resource", filepath.Join(e.dir, "resource.log"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if e.resource, err = e.start("resource", cmd); err != nil {
		return err
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	e.resourceAddr = strings.TrimSpace(addr)
	return err
}

// startWorker puts a new process into the slot.
func (e *episode) startWorker(slot int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ending {
		return nil // the others are about to finish
	}
	e.started++
	name := fmt.Sprintf("w%d.%d", slot, e.started)
	load := workload{
		Name: name, Seed: e.rng.Uint64(), Log: filepath.Join(e.dir, name+".log"),
		Reach: e.site.reach(), Via: e.proxies[slot].addrs(), Resource: e.resourceAddr, Password: e.password,
		Managers: managers, Callers: callers, Keys: e.site.keys(), MinTTL: minTTL, MaxTTL: maxTTL,
	}
	if e.fault.crash {
		load.CrashAt = 1 + e.rng.Int64N(600)
	}
	text, err := json.Marshal(load)
	if err != nil {
		return err
	}
	w, err := e.start(name, exec.Command(os.Args[0], "worker", string(text)))
	if err != nil {
		return err
	}
	e.workers[slot] = w
	go e.watch(slot, w)
	return nil
}

// start starts a process whose errors go to a file, and which ends with the
// controller.
func (e *episode) start(name string, cmd *exec.Cmd) (*process, error) {
	stderr, err := os.Create(filepath.Join(e.dir, name+".stderr"))
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	cmd.Stderr = stderr
	cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1 exitcode=66", "GOTRACEBACK=all")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p := &process{name: name, cmd: cmd, stdin: stdin, gone: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.state, _ = cmd.Process.Wait()
		close(p.gone)
	}()
	return p, nil
}

// watch replaces a worker that was killed, and reports one that ended by itself
// before it was told to.
func (e *episode) watch(slot int, w *process) {
	<-w.gone
	status := w.state.Sys().(syscall.WaitStatus)
	switch {
	case status.Signaled() && status.Signal() == syscall.SIGKILL:
		e.log.Add(history.Event{Process: w.name, Kind: history.Killed})
		if e.fault.crash {
			e.count("crash at a step", w.name)
		}
		if err := e.startWorker(slot); err != nil {
			e.complain("worker: %v", err)
		}
	case !w.state.Success():
		e.complain("%s ended: %v; see %s.stderr", w.name, w.state, w.name)
	}
}

// owner returns the worker that made the owner value, if it lives.
func (e *episode) owner(value string) *process {
	for _, w := range e.current() {
		if strings.HasPrefix(value, w.name+"/") {
			return w
		}
	}
	return nil
}

func (e *episode) current() []*process {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]*process(nil), e.workers[:]...)
}

// killAll ends what is left at the end of the episode.
func (e *episode) killAll() {
	e.mu.Lock()
	e.ending = true
	all := append(e.workers[:], e.resource)
	e.mu.Unlock()
	for _, p := range all {
		if p != nil {
			_ = p.cmd.Process.Kill()
			<-p.gone
		}
	}
}
