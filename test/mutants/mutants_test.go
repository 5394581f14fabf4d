package main

import (
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// A patch that has come to differ from the code shows here already, in no time.
func TestPatchesApply(t *testing.T) {
	mutants, err := load(patches, regexp.MustCompile(""))
	if err != nil {
		t.Fatal(err)
	}
	root, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	copied := t.TempDir()
	if err := copyTree(root, copied, mutants); err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		undo, err := m.apply(copied)
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		if err := undo(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPartsAreTheWhole(t *testing.T) {
	mutants, err := load(patches, regexp.MustCompile(""))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[*mutant]bool)
	for _, share := range []string{"1/3", "2/3", "3/3"} {
		some, err := part(mutants, share)
		if err != nil || len(some) < len(mutants)/3 {
			t.Errorf("%s: %d, %v", share, len(some), err)
		}
		for _, m := range some {
			if seen[m] {
				t.Errorf("%s is in two parts", m.name)
			}
			seen[m] = true
		}
	}
	if len(seen) != len(mutants) {
		t.Errorf("%d of %d", len(seen), len(mutants))
	}
	for _, share := range []string{"", "0/3", "4/3", "x", "1/0", "-1/-1"} {
		if _, err := part(mutants, share); err == nil {
			t.Errorf("%q: no error", share)
		}
	}
}

const header = "breaks: G1 a lie\ncaught: TestLie\n"

func TestPatchThatCannotBeUsedIsAnError(t *testing.T) {
	const diff = "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
	m, err := parse("good", header+"limit: 5s\n"+diff+strings.ReplaceAll(diff, "/f", "/g"))
	if err != nil || len(m.hunks) != 2 || m.hunks[1] != (hunk{"g", "a\nb\n", "a\nc\n"}) {
		t.Errorf("%+v, %v", m, err)
	}
	for name, text := range map[string]string{
		"no header":    diff,
		"no diff":      header,
		"unknown line": header + "count 5\n" + diff,
		"bad limit":    header + "limit: long\n" + diff,
		"cut off":      header + strings.TrimSuffix(diff, "+c\n"),
		"no hunk":      header + "--- a/f\n+++ b/f\n",
	} {
		if _, err := parse(name, text); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestOnlyAFailingTestCatches(t *testing.T) {
	exit := exec.Command("go", "no-such-command").Run()
	for _, c := range []struct{ output, caughtBy, err string }{
		{"--- FAIL: TestA (0.01s)\n    --- FAIL: TestA/redis (0.01s)\nFAIL\n", "TestA/redis", ""},
		{"panic: test timed out after 5s\n\trunning tests:\n\t\tTestA (5s)\n\t\tTestA/redis (5s)\n\ngoroutine 1", "TestA/redis (hangs)", ""},
		{"--- FAIL: TestA (0.00s)\npanic: deadlock: all goroutines in bubble are blocked [recovered, repanicked]\n", "TestA (hangs)", ""},
		{"--- FAIL: TestA (0.00s)\npanic: deadlock: main bubble goroutine has exited but blocked", "TestA", ""},
		{"--- FAIL: TestA (0.00s)\npanic: runtime error: invalid memory address", "", "crashed"},
		{"fatal error: all goroutines are asleep - deadlock!\n", "", "crashed"},
		{"exit without a word", "", "not tested"},
	} {
		caughtBy, err := verdict(c.output, exit)
		if caughtBy != c.caughtBy || c.err == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %q, %v", c.output, caughtBy, err)
		}
	}
	if _, err := verdict("PASS\n", nil); err == nil || err.Error() != "SURVIVED" {
		t.Errorf("a test that passes: %v", err)
	}
}

func TestSimulationTellsTheSeedThatNoticed(t *testing.T) {
	for _, c := range []struct {
		result
		caughtBy, err string
	}{
		{result{output: "    simulation_test.go:55: seed 7:\n  1.2s VIOLATION G8: taken\nVIOLATION G1: two\n        replay: go test ./simulation -run TestSeeds -seed 7 -v\n"}, "seed 7: G8: taken", ""},
		{result{output: "VIOLATION G5: hangs\nreplay: go test ./simulation -run TestSeeds -seed 12 -v\npanic: stuck", err: errors.New("crashed")}, "seed 12: G5: hangs", ""},
		{result{output: "PASS\n", err: errSurvived}, "", "not in 100 seeds"},
		{result{output: "panic: nil map", err: errors.New("crashed")}, "", "crashed"},
	} {
		c.simulated(100)
		if c.result.caughtBy != c.caughtBy || c.err == "" != (c.result.err == nil) || c.result.err != nil && c.result.err.Error() != c.err {
			t.Errorf("%q: %q, %v", c.output, c.result.caughtBy, c.result.err)
		}
	}
}
