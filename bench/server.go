package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock/internal/redisserver"
)

// A server is one of the benchmark's own, and what it says of itself.
type server struct {
	*redisserver.Server
	admin   *redis.Client
	version string
}

func startServer(dir string) (*server, error) {
	run, err := redisserver.Start(redisserver.Options{Dir: dir})
	if err != nil {
		return nil, err
	}
	return administer(run)
}

// administer looks into a server that runs.
func administer(run *redisserver.Server) (*server, error) {
	s := &server{Server: run, admin: redis.NewClient(&redis.Options{Addr: run.Addr, ReadTimeout: time.Minute})}
	info, err := s.admin.InfoMap(context.Background(), "server").Result()
	if err != nil {
		s.close()
		return nil, err
	}
	s.version = info["Server"]["redis_version"]
	return s, nil
}

func (s *server) close() {
	s.admin.Close()
	s.Kill()
}

// reset leaves nothing of what was measured before: no clients, of whom a server that
// was stopped may still have to hear, no keys, no scripts, and none of the events
// that this library switches on.
func (s *server) reset() error {
	ctx := context.Background()
	for _, command := range [][]any{
		{"CLIENT", "KILL", "TYPE", "normal"}, {"FLUSHALL", "SYNC"}, {"SCRIPT", "FLUSH", "SYNC"}, {"CONFIG", "SET", "notify-keyspace-events", ""},
	} {
		if err := s.admin.Do(ctx, command...).Err(); err != nil {
			return err
		}
	}
	return nil
}

// A cost is what has been spent so far, or between two moments.
type cost struct {
	commands float64       // on the server, those inside scripts included
	reads    float64       // from the network, on the server
	scripts  float64       // EVALSHA and EVAL
	server   time.Duration // CPU
	client   time.Duration // CPU of this process
	wall     time.Duration
	asked    float64 // how many servers
}

// spent returns what has been spent on the server since it began.
func (s *server) spent() (cost, error) {
	info, err := s.admin.InfoMap(context.Background(), "stats", "cpu", "commandstats").Result()
	if err != nil {
		return cost{}, err
	}
	c := cost{asked: 1}
	cpu := number(info["CPU"]["used_cpu_sys"]) + number(info["CPU"]["used_cpu_user"])
	c.server = time.Duration(cpu * float64(time.Second))
	c.commands = number(info["Stats"]["total_commands_processed"])
	c.reads = number(info["Stats"]["total_reads_processed"])
	for command, stats := range info["Commandstats"] {
		if name := strings.TrimPrefix(command, "cmdstat_"); name == "evalsha" || name == "eval" {
			calls, _, _ := strings.Cut(strings.TrimPrefix(stats, "calls="), ",")
			c.scripts += number(calls)
		}
	}
	return c, nil
}

var processStart = time.Now()

// since returns what was spent between an earlier moment and c.
func (c cost) since(earlier cost) cost {
	return cost{
		commands: c.commands - earlier.commands - c.asked, // INFO itself
		reads:    c.reads - earlier.reads - c.asked,
		scripts:  c.scripts - earlier.scripts,
		server:   c.server - earlier.server,
		client:   c.client - earlier.client,
		wall:     c.wall - earlier.wall,
	}
}

// ownCPU returns the CPU time that this process has used.
func ownCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(fmt.Sprint("getrusage: ", err)) // cannot be, on Linux
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func number(text string) float64 {
	n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil {
		return 0
	}
	return n
}
