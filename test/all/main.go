// All runs the tests of several modules. It goes on after those that fail, and says at
// the end which did.
//
//	go run ./all [-heavy] [-jobs n] [-race=false] [-v] module...
//
// A module is a folder with a go.mod. Each package's tests run in processes of their
// own, several at a time: they wait for servers and time-outs more than they work. The
// tests within a process run one after another, so that what they count, such as
// goroutines, is theirs.
//
// Without -heavy, tests that are heavy by nature are left out; at the end it says how
// many there were.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A plan says what of a package's tests to run together: patterns as of go test -run.
// A test belongs to the first part whose pattern it matches, and to a further part if it
// matches none. So all run, whatever the patterns are; and one that matches nothing is
// an error.
type plan struct {
	parts []string
	heavy string // left to -heavy, where they are a part of their own; empty: none
}

var plans = map[string]plan{
	"github.com/redislock/redislock": {
		parts: []string{
			"^TestSuite$/^quorum",
			"^TestSuite$",
			"^Test(Cluster|Sentinel|Acquisition|Client)",
			"^Test(Quorum|NoWakeUp|Parked|Killed)",
		},
		heavy: "^TestSuiteOfClients$",
	},
}

// A run is one process: some tests of a package.
type run struct {
	name   string
	dir    string // of the package
	binary string
	args   []string
}

// A runner runs all, and writes down how it went.
type runner struct {
	jobs    int
	race    bool
	heavy   bool
	verbose bool
	plans   map[string]plan
	temp    string // a folder for what is built

	mu     sync.Mutex
	out    io.Writer
	passed int
	failed []string
	left   []string // heavy tests that were left out
}

func main() {
	r := &runner{plans: plans, out: os.Stdout}
	flag.BoolVar(&r.heavy, "heavy", false, "also run the tests that are heavy by nature")
	flag.BoolVar(&r.race, "race", true, "with the race detector")
	flag.IntVar(&r.jobs, "jobs", runtime.NumCPU()+1, "processes at a `time`")
	flag.BoolVar(&r.verbose, "v", false, "show what all tests print, not only those that fail")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := r.runAll(ctx, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (r *runner) runAll(ctx context.Context, modules []string) (err error) {
	if len(modules) == 0 || r.jobs < 1 {
		return errors.New("want modules, and at least one job")
	}
	if r.temp, err = os.MkdirTemp("", "redislock-tests-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.temp)) }()

	began := time.Now()
	queue := make(chan run)
	var workers sync.WaitGroup
	for range r.jobs {
		workers.Go(func() {
			for next := range queue {
				r.test(ctx, next)
			}
		})
	}
	for i, module := range modules {
		// The next is built while the tests of the one before run.
		for _, next := range r.build(ctx, module, filepath.Join(r.temp, fmt.Sprint(i))) {
			queue <- next
		}
	}
	close(queue)
	workers.Wait()
	return r.summary(time.Since(began))
}

// build builds the tests of a module, and returns what to run, the longest first.
func (r *runner) build(ctx context.Context, module, to string) []run {
	const format = "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}\t{{.Dir}}{{end}}"
	list, err := goCommand(ctx, module, "list", "-f", format, "./...")
	if err != nil {
		r.fail(module, err.Error())
		return nil
	}
	var runs []run
	for line := range strings.Lines(string(list)) {
		pkg, dir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if pkg == "" {
			continue
		}
		binary := filepath.Join(to, path.Base(pkg)+".test")
		if _, err := goCommand(ctx, module, "test", fmt.Sprintf("-race=%t", r.race), "-ldflags=-s -w", "-c", "-o", binary, pkg); err != nil {
			r.fail(pkg, err.Error())
			continue
		}
		parts, err := r.divide(ctx, pkg, dir, binary)
		if err != nil {
			r.fail(pkg, err.Error())
		}
		runs = append(runs, parts...)
	}
	return runs
}

func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	name := cmp.Or(os.Getenv("GO"), "go")
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, errs.Bytes(), out)
	}
	return out, err
}

// divide makes the parts of a package's tests.
func (r *runner) divide(ctx context.Context, pkg, dir, binary string) ([]run, error) {
	p := r.plans[pkg]
	whole := run{name: pkg, dir: dir, binary: binary}
	if p.heavy != "" && !r.heavy {
		cmd := exec.CommandContext(ctx, binary, "-test.list", p.heavy)
		cmd.Dir = dir
		names, err := cmd.Output()
		left := strings.Fields(string(names))
		if err != nil || len(left) == 0 {
			return nil, fmt.Errorf("no test is as heavy as %s says: %v", p.heavy, err)
		}
		r.mu.Lock()
		r.left = append(r.left, left...)
		r.mu.Unlock()
	}
	patterns, skip := slices.Clone(p.parts), []string(nil)
	switch {
	case p.heavy != "" && r.heavy:
		patterns = append([]string{p.heavy}, patterns...)
	case p.heavy != "":
		skip = []string{p.heavy}
	}
	var runs []run
	for _, pattern := range append(patterns, "") {
		part := whole
		if pattern != "" {
			part.name += " " + pattern
			part.args = append(part.args, "-test.run", pattern)
		}
		if len(skip) > 0 {
			part.args = append(part.args, "-test.skip", strings.Join(skip, "|"))
		}
		runs = append(runs, part)
		skip = append(skip, pattern)
	}
	return runs, nil
}

// test runs one process.
func (r *runner) test(ctx context.Context, part run) {
	began := time.Now()
	args := append([]string{"-test.paniconexit0", "-test.timeout", "10m"}, part.args...)
	if r.verbose {
		args = append(args, "-test.v")
	}
	cmd := exec.CommandContext(ctx, part.binary, args...)
	cmd.Dir = part.dir
	cmd.Env = append(os.Environ(), "PWD="+part.dir)
	cmd.WaitDelay = 5 * time.Second // a server that a test has left behind may hold the pipe
	output, err := cmd.CombinedOutput()
	if err == nil && bytes.Contains(output, []byte("testing: warning: no tests to run")) {
		err = errors.New("there is no such test")
	}
	if err != nil {
		r.fail(part.name, fmt.Sprintf("%s%v", output, err))
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passed++
	if r.verbose {
		fmt.Fprintf(r.out, "%s", output)
	}
	worked := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	fmt.Fprintf(r.out, "ok    %6.1fs, %6.1fs of a processor's time  %s\n", time.Since(began).Seconds(), worked.Seconds(), part.name)
}

func (r *runner) fail(name, output string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, name)
	fmt.Fprintf(r.out, "%s\nFAIL           %s\n", strings.TrimSpace(output), name)
}

// summary tells how it went, and returns an error unless all is well.
func (r *runner) summary(took time.Duration) error {
	fmt.Fprintf(r.out, "\n%d passed, %d failed, %.0f s\n", r.passed, len(r.failed), took.Seconds())
	if len(r.left) > 0 {
		fmt.Fprintf(r.out, "%d heavy tests are left to make check: %s\n", len(r.left), strings.Join(r.left, ", "))
	}
	if len(r.failed) > 0 {
		return fmt.Errorf("FAILED: %s", strings.Join(r.failed, "; "))
	}
	if r.passed == 0 {
		return errors.New("FAILED: there are no tests")
	}
	return nil
}
