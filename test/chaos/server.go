package main

import (
	_ "embed"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock/internal/redisserver"
)

//go:embed preload/clock.c
var clockSource []byte

// foreignFlags are the notifications that somebody else has switched on.
const foreignFlags = "El$"

// A server is a redis-server that records all it does in its append-only file.
type server struct {
	*redisserver.Server
	dir   string
	lives []string // folders with append-only files, one for each database that began empty
	admin *redis.Client
	clock string // file with the offset of its clock
}

func startServer(dir string, movableClock bool) (*server, error) {
	s := &server{dir: dir}
	options := redisserver.Options{Args: recording(dir)}
	var err error
	if movableClock {
		if options.Env, err = s.buildClock(); err != nil {
			return nil, err
		}
	}
	if options.Dir, err = s.begin(); err != nil {
		return nil, err
	}
	if s.Server, err = redisserver.Start(options); err != nil {
		return nil, err
	}
	s.admin = newAdmin(s.Addr)
	return s, nil
}

// buildClock makes the library that reads the server's clock from a file, and
// returns the environment that has the server use it.
func (s *server) buildClock() (env []string, err error) {
	source, shim := filepath.Join(s.dir, "clock.c"), filepath.Join(s.dir, "clock.so")
	s.clock = filepath.Join(s.dir, "clock")
	if err := os.WriteFile(source, clockSource, 0o644); err != nil {
		return nil, err
	}
	if err := s.setClock(0); err != nil {
		return nil, err
	}
	out, err := exec.Command("cc", "-shared", "-fPIC", "-O1", "-o", shim, source).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("a C compiler is needed to move the server's clock (apt-get install -y gcc libc6-dev): %w\n%s", err, out)
	}
	return []string{"LD_PRELOAD=" + shim, "CHAOS_CLOCK=" + s.clock}, nil
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

// begin makes the folder of an empty database.
func (s *server) begin() (dir string, err error) {
	dir = filepath.Join(s.dir, "redis-"+strconv.Itoa(len(s.lives)))
	s.lives = append(s.lives, dir)
	return dir, os.MkdirAll(dir, 0o755)
}

func (s *server) close() {
	s.admin.Close()
	s.Kill()
}
