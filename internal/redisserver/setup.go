package redisserver

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// prepare makes ready to run one server of several, with a folder of its own.
func prepare(o Options, name string, args ...string) (*Server, error) {
	dir, err := filepath.Abs(filepath.Join(o.Dir, name))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	return &Server{Options: Options{Dir: dir, Args: args, Env: o.Env}, Addr: addr}, nil
}

func killAll(servers []*Server) {
	for _, s := range servers {
		s.Kill()
	}
}

func addrs(servers []*Server) []string {
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.Addr)
	}
	return addrs
}

// role returns what ROLE answers: of a master the number of its replicas that are in
// sync, of a replica whether it is.
func (s *Server) role(timeout time.Duration) (name string, replicas int, inSync bool, err error) {
	answer, err := list(s.doWithin(timeout, "ROLE"))
	if err != nil {
		return "", 0, false, err
	}
	name = fmt.Sprint(answer[0])
	switch name {
	case "master":
		of, _ := answer[2].([]any)
		replicas = len(of)
	case "slave":
		inSync = answer[3] == "connected"
	}
	return name, replicas, inSync, nil
}

// replicated returns an error unless the master has these replicas, and all are in sync.
func replicated(master *Server, replicas []*Server) error {
	name, n, _, err := master.role(atLast)
	if err != nil {
		return err
	}
	if name != "master" || n != len(replicas) {
		return fmt.Errorf("%s is %s of %d replicas in sync", master.Addr, name, n)
	}
	for _, s := range replicas {
		if name, _, inSync, err := s.role(atLast); err != nil {
			return err
		} else if name != "slave" || !inSync {
			return fmt.Errorf("%s is %s, in sync: %t", s.Addr, name, inSync)
		}
	}
	return nil
}

// patience is for machines that are very busy; it takes a second or two.
const patience = 30 * time.Second

// until looks, again and again, until there is no error any more.
func until(look func() error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := look()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("still, after %v: %w", patience, err)
		}
	}
}
