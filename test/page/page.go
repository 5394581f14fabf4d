// Package page writes into pages of the documentation what a program has found.
package page

import (
	"fmt"
	"os"
	"strings"
)

// Write puts the text into a page, between the marks of the command that writes it: in
// place of what is there, and nothing else changes.
func Write(path, command, text string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	begin, end := "<!-- written by "+command+": begin -->\n", "<!-- written by "+command+": end -->\n"
	before, rest, found := strings.Cut(string(page), begin)
	_, after, found2 := strings.Cut(rest, end)
	if !found || !found2 {
		return fmt.Errorf("%s lacks the marks %q and %q", path, begin, end)
	}
	return os.WriteFile(path, []byte(before+begin+text+end+after), 0o644)
}
