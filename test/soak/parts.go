package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// byChance are words of the names of the root module's tests that real time decides in.
var byChance = []string{
	"NoWakeUp", "Crosses", "Order", "Overlaps", "Amid", "Neighbour", "Asleep", "Killed", "Lost", "Survives", "Suite",
}

// build builds what the parts run, and sees that there are such tests.
func (s *soak) build(ctx context.Context) error {
	for _, args := range [][]string{
		{"build", "-race", "-o", s.binary("chaos"), "./chaos"},
		{"test", "-c", "-o", s.binary("simulation"), "./simulation"},
		{"test", "-race", "-c", "-o", s.binary("scripts"), "./scripts"},
		{"test", "-race", "-c", "-o", s.binary("tests"), "github.com/redislock/redislock"},
	} {
		if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	names, err := exec.CommandContext(ctx, s.binary("tests"), "-test.list", ".").Output()
	if err != nil {
		return err
	}
	for _, word := range byChance {
		if !regexp.MustCompile(`(?m)^Test.*` + word).Match(names) {
			return fmt.Errorf("no test is called %s", word)
		}
	}
	return nil
}

func (s *soak) binary(name string) string { return filepath.Join(s.dir, name+".test") }

// patience is how long something may take beyond its time before it counts as hanging.
const patience = 15 * time.Minute

// start runs a program in a folder to its end, and notes what it says.
func (r *run) start(ctx context.Context, folder, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, r.budget+patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = folder
	// A test that hangs says where.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "PATH="+r.path)
	cmd.Stdout, cmd.Stderr = &r.output, &r.output
	return cmd.Run()
}

// chaos attacks with every kind of fault.
func chaos(ctx context.Context, r *run) error {
	results := filepath.Join(r.dir, "chaos.json")
	keep := filepath.Join(r.dir, fmt.Sprint("chaos-", r.seed))
	failure := r.start(ctx, ".", r.binary("chaos"),
		"-for", r.budget.String(), "-seed", fmt.Sprint(r.seed), "-results", results, "-keep", keep)
	text, err := os.ReadFile(results)
	if err != nil {
		return errors.Join(failure, err)
	}
	var episodes []struct {
		Calls, Lost, Violations int
		Injected                map[string]int
	}
	if err := errors.Join(json.Unmarshal(text, &episodes), os.Remove(results)); err != nil {
		return errors.Join(failure, err)
	}
	for _, e := range episodes {
		r.figures["calls"] += e.Calls
		r.figures["writes lost with masters"] += e.Lost
		r.figures["violations"] += e.Violations
		for _, n := range e.Injected {
			r.figures["faults"] += n
		}
	}
	r.figures["episodes"] += len(episodes)
	if failure != nil {
		return failure // with the logs of all episodes in keep
	}
	return os.RemoveAll(keep)
}

// simulation runs seeds in fake time until its time is over.
func simulation(ctx context.Context, r *run) error {
	const each = 500
	for i, end := uint64(0), time.Now().Add(r.budget); time.Now().Before(end); i++ {
		first := r.seed*1_000_000 + i*each
		if err := r.start(ctx, "simulation", r.binary("simulation"), "-test.run", "^TestSeeds$", "-test.timeout", "0",
			"-seeds", fmt.Sprint(each), "-first", fmt.Sprint(first)); err != nil {
			return err
		}
		r.figures["seeds"] += each
	}
	return nil
}

// tests runs the tests that live on chance, once at least, until their time is over.
func tests(ctx context.Context, r *run) error {
	passed := regexp.MustCompile(`(?m)^\s*--- PASS`)
	for again, end := true, time.Now().Add(r.budget); again; again = time.Now().Before(end) {
		r.output.Reset()
		err := r.start(ctx, "..", r.binary("tests"), "-test.v", "-test.timeout", "30m", "-test.run", strings.Join(byChance, "|"))
		if err != nil {
			return err
		}
		r.figures["tests"] += len(passed.FindAll(r.output.Bytes(), -1))
	}
	return nil
}

// scripts runs the scripts on a server and in their model, with other random calls each
// time.
func scripts(ctx context.Context, r *run) error {
	for again, end := true, time.Now().Add(r.budget); again; again = time.Now().Before(end) {
		if err := r.start(ctx, "scripts", r.binary("scripts"), "-test.timeout", "30m"); err != nil {
			return err
		}
		r.figures["runs"]++
	}
	return nil
}

// fuzzing gives each fuzz target the same part of its time.
func fuzzing(ctx context.Context, r *run) error {
	list, err := exec.CommandContext(ctx, r.binary("tests"), "-test.list", "^Fuzz").Output()
	if err != nil {
		return err
	}
	targets := strings.Fields(string(list))
	if len(targets) == 0 {
		return errors.New("there is nothing to fuzz")
	}
	for _, target := range targets {
		each := max(time.Second, r.budget/time.Duration(len(targets))).Round(time.Second)
		err := r.start(ctx, "..", "go", "test", "-run", "^$", "-fuzz", "^"+target+"$", "-fuzztime", each.String(), ".")
		if err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
		r.figures["targets"]++
	}
	return nil
}
