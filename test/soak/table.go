package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// table writes what came of all rounds, in Markdown.
func (s *soak) table(took time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %v in all, seeds from %d, %s, %d cores.\n\n",
		time.Now().Format("2 January 2006"), took.Round(time.Minute), s.seed, runtime.Version(), runtime.NumCPU())
	b.WriteString("| what | on | runs | time | that was | failed |\n| --- | --- | ---: | ---: | --- | ---: |\n")
	for _, l := range s.lines {
		var figures []string
		for what, n := range l.figures {
			if n > 0 {
				figures = append(figures, fmt.Sprintf("%s %s", thousands(n), what))
			}
		}
		slices.Sort(figures)
		fmt.Fprintf(&b, "| %s | %s | %d | %v | %s | %d |\n",
			l.part, l.server, l.runs, l.took.Round(time.Second), strings.Join(figures, ", "), l.failed)
	}
	return b.String()
}

// thousands writes a number with its thousands apart.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
