package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write makes a module in a temporary folder, with a package for each name, whose tests
// are the text.
func write(t *testing.T, module string, packages map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), module)
	files := map[string]string{"go.mod": "module " + module + "\n\ngo 1.26\n"}
	for name, test := range packages {
		files[name+"/"+name+".go"] = "package " + name + "\n"
		files[name+"/"+name+"_test.go"] = "package " + name + "\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nvar _ = os.Exit\n\n" + test
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func runOn(t *testing.T, r *runner, modules ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	r.out = &out
	if r.jobs == 0 {
		r.jobs = 2
	}
	err := r.runAll(context.Background(), modules)
	t.Log(out.String())
	return out.String(), err
}

// Whatever fails, in whichever way, the rest runs, and the end says what it was.
func TestAllRunWhateverFails(t *testing.T) {
	bad := write(t, "bad", map[string]string{
		"fails":  "func TestFails(t *testing.T) { t.Error(\"as it should\") }\n",
		"broken": "func TestBroken(t *testing.T) { nothing() }\n",
		"leaves": "func TestLeaves(t *testing.T) { os.Exit(0) }\n",
	})
	good := write(t, "good", map[string]string{"fine": "func TestFine(t *testing.T) {}\n"})
	out, err := runOn(t, new(runner), "no such module", bad, good)
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{"no such module", "bad/fails", "bad/broken", "bad/leaves"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is missing in: %v", name, err)
		}
	}
	for _, text := range []string{"as it should", "undefined: nothing", "good/fine", "1 passed, 4 failed"} {
		if !strings.Contains(out, text) {
			t.Errorf("%q is missing", text)
		}
	}
}

// Each test runs once, in whichever part; heavy ones when they are asked for.
func TestPartsAreTheWhole(t *testing.T) {
	const tests = `
func TestOne(t *testing.T)   { t.Run("sub", func(*testing.T) { println("ran One") }) }
func TestTwo(t *testing.T) {
	for _, name := range []string{"a", "b"} {
		t.Run(name, func(*testing.T) { println("ran Two", name) })
	}
}
func TestThree(t *testing.T) { println("ran Three") }
func TestHeavy(t *testing.T) { println("ran Heavy") }
`
	module := write(t, "parts", map[string]string{"some": tests})
	with := func(heavy string, parts ...string) map[string]plan {
		return map[string]plan{"parts/some": {parts: parts, heavy: heavy}}
	}
	ran := func(out string) (n int) {
		for _, name := range []string{"One", "Two a", "Two b", "Three", "Heavy"} {
			n += strings.Count(out, "ran "+name+"\n")
			if strings.Count(out, "ran "+name+"\n") > 1 {
				t.Errorf("%s ran twice", name)
			}
		}
		return n
	}
	plans := with("^TestHeavy$", "^TestTwo$/^b$", "^TestOne$")
	out, err := runOn(t, &runner{plans: plans, heavy: true, verbose: true}, module)
	if err != nil || ran(out) != 5 {
		t.Errorf("%d of 5 ran: %v", ran(out), err)
	}
	out, err = runOn(t, &runner{plans: plans, verbose: true}, module)
	if err != nil || ran(out) != 4 || !strings.Contains(out, "1 heavy tests are left to make check: TestHeavy") {
		t.Errorf("%d of 4 ran: %v", ran(out), err)
	}
	for _, plans := range []map[string]plan{with("^TestNone$"), with("", "^TestNone$")} {
		if _, err = runOn(t, &runner{plans: plans}, module); err == nil {
			t.Error("a pattern that matches nothing is no error")
		}
	}
}
