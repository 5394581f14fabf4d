// Mutants breaks the library on purpose, one way at a time, and demands that a
// test notices each.
//
//	go run ./mutants [-run regexp] [-share i/n] [-jobs n] [-all | -seeds n] [-v]
//
// in the folder test. It needs what the tests need: a redis-server.
//
// A mutant is a patch in this folder, NN-name.patch: a header, and a unified
// diff (as of git diff) of files of the root module.
//
//	breaks: G8 a release removes whatever it finds under the key
//	caught: TestUnlockIsRightInEveryCase/redis/taken_away
//
// breaks names the guarantee, as docs/protocol.md has it, and says in which way.
// caught names the one test that has to fail, the narrowest and quickest there
// is, in the root package or, as in "caught: test/simulation TestLine", in
// another. Optional are:
//
//	count: 20     how often the test is run at most, where chance is involved
//	limit: 5s     the time limit, where the test fails by hanging (default 20s)
//	race: true    with the race detector
//
// To add one: break the code, see which test fails, put
// "git diff --no-prefix -- FILE" or "git diff -- FILE" behind a header, undo the
// change, and run it alone: go run ./mutants -run name. If no test fails, write
// that test first.
//
// With -seeds n the simulation takes the place of the tests: after how many seeds,
// of n, does it notice each mutant? It need not notice all.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

//go:embed *.patch
var patches embed.FS

func main() {
	only := flag.String("run", "", "only mutants whose name matches this regular `expression`")
	share := flag.String("share", "1/1", "only the i-th of n `parts`, such as 2/3: every n-th mutant")
	jobs := flag.Int("jobs", 1, "mutants tested at a `time`")
	all := flag.Bool("all", false, "run all tests of the package, not only the one named: slow")
	seeds := flag.Int("seeds", 0, "run the simulation instead of the tests: tell which of `n` seeds is the first to notice")
	verbose := flag.Bool("v", false, "show what the tests print")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *only, *share, *jobs, *all, *seeds, *verbose)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only, share string, jobs int, all bool, seeds int, verbose bool) error {
	pattern, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	if flag.NArg() > 0 || jobs < 1 || seeds < 0 || all && seeds > 0 {
		return errors.New("want flags only, at least one job, and not both -all and -seeds")
	}
	mutants, err := load(patches, pattern)
	if err == nil {
		mutants, err = part(mutants, share)
	}
	if err != nil {
		return err
	}
	if seeds > 0 {
		for _, m := range mutants {
			m.simulate(seeds)
		}
	}
	root, err := findRoot()
	if err != nil {
		return err
	}
	temp, leave, err := enter(filepath.Join(os.TempDir(), fmt.Sprint("redislock-mutants-", os.Getuid())))
	if err != nil {
		return err
	}
	defer leave()

	began := time.Now()
	benches := make(chan *bench, jobs)
	for i := range jobs {
		b := &bench{root: filepath.Join(temp, fmt.Sprint(i)), all: all, seeds: seeds}
		if err := copyTree(root, b.root, mutants); err != nil {
			return err
		}
		benches <- b
	}
	b := <-benches
	if err := b.unbroken(ctx, mutants); err != nil {
		return err
	}
	benches <- b
	fmt.Printf("%d tests pass on the unbroken library, %.0f s\n\n", len(named(mutants)), time.Since(began).Seconds())

	results := make([]chan result, len(mutants))
	for i := range results {
		results[i] = make(chan result, 1)
	}
	go func() {
		for i, m := range mutants {
			b := <-benches
			go func() {
				results[i] <- b.try(ctx, m)
				benches <- b
			}()
		}
	}()
	caught := 0
	for i, m := range mutants {
		r := <-results[i]
		if r.err == nil {
			caught++
		}
		report(m, r, verbose)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	fmt.Printf("\n%d of %d caught, %.0f s\n", caught, len(mutants), time.Since(began).Seconds())
	if caught < len(mutants) {
		return fmt.Errorf("%d not caught", len(mutants)-caught)
	}
	return nil
}

// part returns the i-th of n parts of equal size, share being i/n.
func part(mutants []*mutant, share string) (some []*mutant, err error) {
	var i, n int
	if _, err := fmt.Sscanf(share, "%d/%d", &i, &n); err != nil || i < 1 || i > n {
		return nil, fmt.Errorf("share %q: want i/n, i from 1 to n", share)
	}
	for at, m := range mutants {
		if at%n == i-1 {
			some = append(some, m)
		}
	}
	return some, nil
}

// report prints a row of the table.
func report(m *mutant, r result, verbose bool) {
	verdict := r.caughtBy
	if r.err != nil {
		verdict = "FAIL: " + r.err.Error()
	}
	fmt.Printf("%-30s %-75s %-62s %5.1f\n", m.name, m.breaks, verdict, r.took.Seconds())
	if verbose || r.err != nil {
		for line := range strings.Lines(r.output) {
			fmt.Print("    ", line)
		}
	}
}

// findRoot returns the root of the repository, from anywhere within.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "test", "mutants", "main.go")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("run it in the repository")
		}
		dir = parent
	}
}

// enter makes an empty folder, for this process alone. It is the same each time,
// as what the compiler has in its cache is by path.
func enter(dir string) (string, func(), error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return "", nil, fmt.Errorf("another run is under way in %s: %w", dir, err)
	}
	empty := func() error {
		entries, err := os.ReadDir(dir)
		for _, entry := range entries {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
		}
		return err
	}
	return dir, func() { _ = empty(); lock.Close() }, empty()
}

// copyTree copies what the mutants and their tests need of the repository.
func copyTree(from, to string, mutants []*mutant) error {
	left := map[string]bool{".git": true, "examples": true, "test/mutants": true, "test": true}
	for _, m := range mutants {
		if strings.HasPrefix(m.pkg, "test/") {
			delete(left, "test")
		}
	}
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case left[filepath.ToSlash(name)] && entry.IsDir():
			return fs.SkipDir
		case entry.IsDir():
			return os.MkdirAll(target, 0o755)
		case !entry.Type().IsRegular() || name == ".git":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, text, 0o644)
	})
}
