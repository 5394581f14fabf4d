// Soak runs, for hours, all that finds faults by chance, in turn, and ends with one table.
//
//	go run ./soak [-for 1h] [-seed n] [-servers folder] [-report ../docs/reliability.md]
//
// in the folder test. A round is a chaos run of every kind of fault, thousands of seeds of
// the simulation, the root module's tests that live on chance, the scripts beside their
// model, and all fuzz targets; each with other seeds than the round before. Rounds follow
// one another until the time is over. With a folder of servers, as test/servers/run.sh
// makes it, each round runs on the next of them. It goes on after what fails, keeps what
// that has said, and fails at the end.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/redislock/redislock/test/page"
)

func main() {
	var s soak
	flag.DurationVar(&s.total, "for", time.Hour, "how long it takes in all, a part of a round more or less")
	flag.DurationVar(&s.round, "round", 30*time.Minute, "about how long a round takes")
	flag.Uint64Var(&s.seed, "seed", uint64(time.Now().Unix()), "of the first round; each that follows has the next")
	servers := flag.String("servers", "", "`folder` of servers, each a folder with its redis-server: each round runs on the next")
	report := flag.String("report", "", "`page` to write the table into, between its marks, if nothing failed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := s.run(ctx, *servers, *report); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// A soak is one run of this program.
type soak struct {
	total, round time.Duration
	seed         uint64

	dir     string   // what failed is kept here, and what was built
	servers []string // folders that come first in PATH, in turn; "": as it is
	ends    time.Time
	lines   []line
	kept    []string // files with what failed has said
}

// A line of the table is what came of one part on one server, in all rounds.
type line struct {
	part, server string
	runs, failed int
	took         time.Duration
	figures      map[string]int
}

// A part is what a round does one after the other.
type part struct {
	name   string
	share  float64 // of the time of a round
	server bool    // on which it matters
	run    func(ctx context.Context, r *run) error
}

// A run is a part of one round.
type run struct {
	*soak
	seed    uint64
	budget  time.Duration
	path    string // PATH of what it starts
	output  bytes.Buffer
	figures map[string]int
}

var parts = []part{
	{"chaos", 0.7, true, chaos},
	{"simulation", 0.1, false, simulation},
	{"tests that live on chance", 0.1, true, tests},
	{"scripts beside their model", 0.02, true, scripts},
	{"fuzzing", 0.08, false, fuzzing},
}

func (s *soak) run(ctx context.Context, servers, report string) (err error) {
	if s.total <= 0 || s.round <= 0 {
		return errors.New("-for and -round must be longer than nothing")
	}
	if err := s.findServers(servers); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "soak-"); err != nil {
		return err
	}
	if err := s.build(ctx); err != nil {
		return err
	}
	began := time.Now()
	s.ends = began.Add(s.total)
	for round := 0; time.Now().Before(s.ends) && ctx.Err() == nil; round++ {
		for _, p := range parts {
			if left := time.Until(s.ends); left > 0 && ctx.Err() == nil {
				s.one(ctx, p, round)
			}
		}
	}
	text := s.table(time.Since(began))
	fmt.Print("\n", text)
	if len(s.kept) > 0 || ctx.Err() != nil {
		return errors.Join(ctx.Err(), fmt.Errorf("%d runs failed: %s", len(s.kept), strings.Join(s.kept, " ")))
	}
	if report != "" {
		err = page.Write(report, "make soak", text)
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// one runs a part of a round.
func (s *soak) one(ctx context.Context, p part, round int) {
	folder := s.servers[round%len(s.servers)]
	r := &run{soak: s, seed: s.seed + uint64(round), path: os.Getenv("PATH"), figures: make(map[string]int)}
	r.budget = min(time.Duration(p.share*float64(min(s.round, s.total))), time.Until(s.ends))
	if folder != "" {
		r.path = folder + string(filepath.ListSeparator) + r.path
	}
	began := time.Now()
	err := p.run(ctx, r)
	if ctx.Err() != nil {
		return // it was ended from outside
	}
	server := "no server"
	if p.server {
		server = version(ctx, folder)
	}
	l := s.lineOf(p.name, server)
	l.runs, l.took = l.runs+1, l.took+time.Since(began)
	for what, n := range r.figures {
		l.figures[what] += n
	}
	said := "passed"
	if err != nil {
		l.failed++
		file := filepath.Join(s.dir, fmt.Sprintf("%s-%d.log", strings.ReplaceAll(p.name, " ", "-"), r.seed))
		said = fmt.Sprintf("FAILED: %v; see %s", err, file)
		s.kept = append(s.kept, file)
		if err := os.WriteFile(file, r.output.Bytes(), 0o644); err != nil {
			said += ", which could not be written: " + err.Error()
		}
	}
	fmt.Printf("round %d, seed %d, %s on %s, %v: %s\n", round+1, r.seed, p.name, server, time.Since(began).Round(time.Second), said)
}

func (s *soak) lineOf(part, server string) *line {
	i := slices.IndexFunc(s.lines, func(l line) bool { return l.part == part && l.server == server })
	if i < 0 {
		i = len(s.lines)
		s.lines = append(s.lines, line{part: part, server: server, figures: make(map[string]int)})
	}
	return &s.lines[i]
}

// findServers notes the servers that rounds run on.
func (s *soak) findServers(folder string) error {
	if folder == "" {
		s.servers = []string{""}
		return nil
	}
	programs, err := filepath.Glob(filepath.Join(folder, "*", "redis-server"))
	if err != nil {
		return err
	}
	if len(programs) == 0 {
		return fmt.Errorf("%s has no */redis-server", folder)
	}
	for _, program := range programs {
		absolute, err := filepath.Abs(filepath.Dir(program))
		if err != nil {
			return err
		}
		s.servers = append(s.servers, absolute)
	}
	return nil
}

// version returns what the server in a folder is called, or, without one, that in PATH.
func version(ctx context.Context, folder string) string {
	text, err := exec.CommandContext(ctx, filepath.Join(folder, "redis-server"), "--version").Output()
	name, rest, found := strings.Cut(string(text), " server v=")
	if err != nil || !found {
		return "an unknown server"
	}
	return name + " " + strings.Fields(rest)[0]
}
