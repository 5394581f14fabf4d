package aof

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Read reads the history in the given appendonlydir folders. Each further folder
// is that of a server which began anew with nothing, after the one before it was
// gone; the entry Restarted stands in between.
func Read(dirs ...string) ([]Entry, error) {
	p := new(parser)
	for i, dir := range dirs {
		if i > 0 {
			p.restarted()
		}
		if err := readDir(p, dir, "bi"); err != nil {
			return nil, err
		}
	}
	return p.entries, nil
}

// readDir reads the files of a folder that are of one of the kinds: "b" is a base, "i"
// an increment.
func readDir(p *parser, dir, kinds string) error {
	files, err := manifest(dir, kinds)
	if err != nil {
		return err
	}
	for n, name := range files {
		path := filepath.Join(dir, name)
		err := parseFile(p, path)
		// A server that loads a file which was cut off mends it. So only the
		// last one can still be.
		if errors.Is(err, errCut) && n == len(files)-1 {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func parseFile(p *parser, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	p.db = 0
	return p.parse(file)
}

// Base names the file with the data that a server began with. It is another one after
// each time that the server has begun anew, as to follow a master.
func Base(dir string) (string, error) {
	names, err := manifest(dir, "b")
	if err != nil {
		return "", err
	}
	return names[len(names)-1], nil
}

// manifest returns the names of the files in the order in which Redis would load
// them: the base, then the increments by number. Other kinds than these are left out.
func manifest(dir, kinds string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.manifest"))
	if err != nil {
		return nil, err
	}
	if len(paths) != 1 {
		return nil, fmt.Errorf("%s: %d manifests: want 1", dir, len(paths))
	}
	file, err := os.Open(paths[0])
	if err != nil {
		return nil, err
	}
	defer file.Close()

	type part struct {
		name, kind string
		seq        int
	}
	var parts []part
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var one part
		words := strings.Fields(lines.Text())
		for i := 0; i+1 < len(words); i += 2 {
			switch words[i] {
			case "file":
				one.name = words[i+1]
			case "type":
				one.kind = words[i+1]
			case "seq":
				if one.seq, err = strconv.Atoi(words[i+1]); err != nil {
					return nil, fmt.Errorf("%s: %q: %w", paths[0], lines.Text(), err)
				}
			}
		}
		if one.kind != "" && strings.Contains(kinds, one.kind) { // "h" is history, waiting to be deleted
			parts = append(parts, one)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(parts) == 0 {
		return nil, fmt.Errorf("%s names no files", paths[0])
	}
	slices.SortStableFunc(parts, func(a, b part) int {
		return cmp.Or(strings.Compare(a.kind, b.kind), cmp.Compare(a.seq, b.seq))
	})
	names := make([]string, len(parts))
	for i, one := range parts {
		names[i] = one.name
	}
	return names, nil
}
