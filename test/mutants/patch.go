package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A mutant is one way to break the library, and the test that has to notice.
type mutant struct {
	name   string // of its file
	breaks string
	pkg    string // folder of the package that is tested
	test   string // maybe with subtests, by slashes
	count  int
	limit  time.Duration
	race   bool
	hunks  []hunk
}

// A hunk is one change to one file. Where it goes is told by the lines that it
// replaces and those around them, which have to be there exactly once; line
// numbers, which change with every edit, are ignored.
type hunk struct {
	file     string
	old, new string
}

// load reads the mutants whose names match.
func load(files fs.FS, only *regexp.Regexp) (mutants []*mutant, err error) {
	names, err := fs.Glob(files, "*.patch")
	if err != nil {
		return nil, err
	}
	for _, file := range names {
		name := strings.TrimSuffix(file, ".patch")
		if !only.MatchString(name) {
			continue
		}
		text, err := fs.ReadFile(files, file)
		if err != nil {
			return nil, err
		}
		m, err := parse(name, string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		mutants = append(mutants, m)
	}
	if len(mutants) == 0 {
		return nil, errors.New("no mutant has such a name")
	}
	return mutants, nil
}

// simulate has the simulation tested instead of the test that is named.
func (m *mutant) simulate(seeds int) {
	m.pkg, m.test, m.race, m.count = "test/simulation", "TestSeeds", false, 1
	m.limit = time.Minute + time.Duration(seeds)*100*time.Millisecond
}

func parse(name, text string) (*mutant, error) {
	m := &mutant{name: name, pkg: ".", count: 1, limit: 20 * time.Second}
	header, diff, found := strings.Cut("\n"+text, "\n--- ")
	if !found {
		return nil, errors.New("no diff")
	}
	for line := range strings.Lines(header) {
		line = strings.TrimSpace(line)
		key, value, _ := strings.Cut(line, ": ")
		var err error
		switch key {
		case "breaks":
			m.breaks = value
		case "caught":
			m.test = value
			if pkg, test, found := strings.Cut(value, " "); found {
				m.pkg, m.test = pkg, test
			}
		case "count":
			m.count, err = strconv.Atoi(value)
		case "limit":
			m.limit, err = time.ParseDuration(value)
		case "race":
			m.race, err = strconv.ParseBool(value)
		default:
			if line != "" && !strings.HasPrefix(line, "diff ") && !strings.HasPrefix(line, "index ") {
				err = fmt.Errorf("header %q", line)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	if m.breaks == "" || m.test == "" {
		return nil, errors.New(`header lacks "breaks: " or "caught: "`)
	}
	return m, m.parseDiff("--- " + diff)
}

var hunkHeader = regexp.MustCompile(`^@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@`)

func (m *mutant) parseDiff(diff string) error {
	file := ""
	var before, after int // lines of the hunk that are still to come
	for line := range strings.Lines(diff) {
		if before > 0 || after > 0 {
			h, text := &m.hunks[len(m.hunks)-1], line[1:]
			switch line[0] {
			case ' ':
				h.old, h.new = h.old+text, h.new+text
				before, after = before-1, after-1
			case '-':
				h.old += text
				before--
			case '+':
				h.new += text
				after--
			default:
				return fmt.Errorf("diff has %q", line)
			}
			continue
		}
		header := hunkHeader.FindStringSubmatch(line)
		switch {
		case header != nil && file != "":
			m.hunks = append(m.hunks, hunk{file: file})
			before, after = lines(header[1]), lines(header[2])
		case strings.HasPrefix(line, "+++ "):
			file = strings.TrimPrefix(strings.Fields(line)[1], "b/")
		case !strings.HasPrefix(line, "--- ") && !strings.HasPrefix(line, "diff ") && !strings.HasPrefix(line, "index "):
			return fmt.Errorf("diff has %q", line)
		}
	}
	if len(m.hunks) == 0 || before != 0 || after != 0 {
		return errors.New("diff is cut off")
	}
	return nil
}

// lines reads a count in the header of a hunk, which is left out if it is 1.
func lines(count string) int {
	if n, err := strconv.Atoi(count); err == nil {
		return n
	}
	return 1
}

// apply changes the files under root. undo puts them back, whatever came of it.
func (m *mutant) apply(root string) (undo func() error, err error) {
	before := make(map[string][]byte)
	undo = func() error {
		var errs []error
		for file, text := range before {
			errs = append(errs, os.WriteFile(file, text, 0o644))
		}
		return errors.Join(errs...)
	}
	for _, h := range m.hunks {
		file := filepath.Join(root, filepath.FromSlash(h.file))
		text, err := os.ReadFile(file)
		if err != nil {
			return undo, err
		}
		if before[file] == nil {
			before[file] = text
		}
		// Whole lines: each hunk begins at the beginning of one.
		changed, n := "\n"+string(text), strings.Count("\n"+string(text), "\n"+h.old)
		if n != 1 {
			return undo, fmt.Errorf("patch does not apply: %s has these lines %d times:\n%s", h.file, n, h.old)
		}
		changed = strings.Replace(changed, "\n"+h.old, "\n"+h.new, 1)
		if err := os.WriteFile(file, []byte(changed[1:]), 0o644); err != nil {
			return undo, err
		}
	}
	return undo, nil
}
