package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A bench is a copy of the repository in which one mutant is tested at a time.
type bench struct {
	root  string
	all   bool
	seeds int // run the simulation, with so many; or 0
}

// result is what became of a mutant.
type result struct {
	caughtBy string
	err      error // survived, or could not be tested
	output   string
	took     time.Duration
}

const (
	allLimit = 5 * time.Minute

	// slack is how many times as long as on the unbroken library a test may take,
	// on this machine now, before that counts as hanging, whatever its limit.
	slack = 4
)

// named returns the tests that the mutants name, by package.
func named(mutants []*mutant) map[string]*mutant {
	tests := make(map[string]*mutant)
	for _, m := range mutants {
		tests[m.pkg+" "+m.test] = m
	}
	return tests
}

var passed = regexp.MustCompile(`(?m)^ *--- PASS: (\S+) \(([\d.]+)s\)$`)

// unbroken checks that all tests that are to fail on a mutant pass without.
func (b *bench) unbroken(ctx context.Context, mutants []*mutant) error {
	type build struct {
		pkg  string
		race bool
	}
	builds := make(map[build]map[string]bool) // the tests, without subtests
	for _, m := range mutants {
		of := build{m.pkg, m.race}
		if builds[of] == nil {
			builds[of] = make(map[string]bool)
		}
		test, _, _ := strings.Cut(m.test, "/")
		builds[of][test] = true
	}
	for of, tests := range builds {
		binary, err := b.compile(ctx, of.pkg, of.race)
		if err != nil {
			return fmt.Errorf("the unbroken library: %w", err)
		}
		var names []string
		for test := range tests {
			names = append(names, test)
		}
		output, err := b.exec(ctx, binary, of.pkg, "^("+strings.Join(names, "|")+")$", 1, allLimit)
		if err != nil {
			return fmt.Errorf("tests fail on the unbroken library: %w\n%s", err, output)
		}
		took := make(map[string]float64)
		for _, match := range passed.FindAllStringSubmatch(output, -1) {
			took[match[1]], _ = strconv.ParseFloat(match[2], 64)
		}
		for _, m := range mutants {
			if of != (build{m.pkg, m.race}) {
				continue
			}
			seconds, ran := took[m.test]
			if !ran {
				return fmt.Errorf("%s: there is no test %s", m.name, m.test)
			}
			m.limit = max(m.limit, time.Duration(slack*seconds*float64(m.count)*float64(time.Second)))
		}
	}
	return nil
}

// try tests one mutant.
func (b *bench) try(ctx context.Context, m *mutant) (r result) {
	began := time.Now()
	undo, err := m.apply(b.root)
	defer func() {
		if err := undo(); err != nil {
			r.err = errors.Join(r.err, err)
		}
		r.took = time.Since(began)
	}()
	if err != nil {
		return result{err: err}
	}
	binary, err := b.compile(ctx, m.pkg, m.race)
	if err != nil {
		return result{err: err}
	}
	test, count, limit := "^"+strings.ReplaceAll(m.test, "/", "$/^")+"$", m.count, m.limit
	if b.all {
		test, count, limit = ".", 1, allLimit
	}
	r.output, err = b.exec(ctx, binary, m.pkg, test, count, limit)
	r.caughtBy, r.err = verdict(r.output, err)
	if b.seeds > 0 {
		r.simulated(b.seeds)
	}
	if r.err == nil && !b.all && b.seeds == 0 && !regexp.MustCompile("^"+regexp.QuoteMeta(m.test)+"($|[ /])").MatchString(r.caughtBy) {
		r.err = fmt.Errorf("caught by %s, not by %s", r.caughtBy, m.test)
	}
	return r
}

// compile builds the test binary of a package. The compiler is told to hurry:
// most of a run is spent here.
func (b *bench) compile(ctx context.Context, pkg string, race bool) (string, error) {
	binary := filepath.Join(b.root, "mutant.test")
	args := []string{"test", "-c", "-gcflags=-N -l -dwarf=0", "-ldflags=-s -w", "-vet=off", "-o", binary}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Dir = filepath.Join(b.root, filepath.FromSlash(pkg))
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("does not compile: %w\n%s", err, output)
	}
	return binary, nil
}

// exec runs tests until the first that fails.
func (b *bench) exec(ctx context.Context, binary, pkg, test string, count int, limit time.Duration) (string, error) {
	// The binary keeps to the limit by itself, and tells then what it was at.
	ctx, cancel := context.WithTimeout(ctx, limit+10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.v", "-test.failfast", "-test.run="+test,
		"-test.count="+strconv.Itoa(count), "-test.timeout="+limit.String())
	if b.seeds > 0 {
		cmd.Args = append(cmd.Args, "-seeds="+strconv.Itoa(b.seeds), "-limit=1")
	}
	cmd.Dir = filepath.Join(b.root, filepath.FromSlash(pkg))
	cmd.Env = append(os.Environ(), "PWD="+cmd.Dir)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.WaitDelay = time.Second // a process that a test has left behind may hold the pipe
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return output.String(), err
}

var errSurvived = errors.New("SURVIVED")

var (
	failed  = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+) \(`)
	hanging = regexp.MustCompile(`(?m)^\t\t(\S+) \([0-9hms.]+\)$`)
	crashed = regexp.MustCompile(`(?m)^(panic|fatal error|SIG[A-Z]+): .*$`)
)

// verdict tells which test noticed the mutant, by an assertion or by hanging.
// A crash is no proof that the test would notice anything subtler.
func verdict(output string, err error) (caughtBy string, _ error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "", errSurvived
	case !errors.As(err, &exit):
		return "", fmt.Errorf("not tested: %w", err)
	}
	names, how := failed, ""
	if crash := crashed.FindString(output); strings.HasPrefix(crash, "panic: test timed out") {
		names, how = hanging, " (hangs)"
	} else if strings.HasPrefix(crash, "panic: deadlock: all goroutines") {
		how = " (hangs)" // in fake time, where that shows at once
	} else if crash != "" && !strings.HasPrefix(crash, "panic: deadlock: main") { // a failed test leaves goroutines
		return "", fmt.Errorf("crashed, instead of failing: %s", crash)
	}
	for _, match := range names.FindAllStringSubmatch(output, -1) {
		if len(match[1]) > len(caughtBy) {
			caughtBy = match[1] // the innermost
		}
	}
	if caughtBy == "" {
		return "", fmt.Errorf("not tested: %w", err)
	}
	return caughtBy + how, nil
}

var (
	storyOf   = regexp.MustCompile(`(?m)^ *replay: .* -seed (\d+)`)
	violation = regexp.MustCompile(`VIOLATION (.*)`)
)

// simulated reads from the output of the simulation which seed was the first to
// fail, and how: by a violation, which it may tell before it panics.
func (r *result) simulated(seeds int) {
	if seed := storyOf.FindStringSubmatch(r.output); seed != nil {
		r.caughtBy, r.err = "seed "+seed[1], nil
		if what := violation.FindStringSubmatch(r.output); what != nil {
			r.caughtBy += ": " + what[1]
		}
	} else if errors.Is(r.err, errSurvived) {
		r.err, r.output = fmt.Errorf("not in %d seeds", seeds), ""
	}
}
