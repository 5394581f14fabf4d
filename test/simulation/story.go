package simulation

import (
	"fmt"
	"hash/fnv"
	"strings"
	"time"
)

// A story is what happened, in the order of time. It is told when something has
// gone wrong.
type story struct {
	net        *network
	lines      []line
	names      []string // pairs: what is unreadable in Redis, and who is meant
	violations []string
	simple     bool // no trouble, and one key
}

type line struct {
	at     time.Duration
	format string
	args   []any
}

// add notes something. The arguments must not change in how they print.
func (s *story) add(format string, args ...any) {
	s.lines = append(s.lines, line{s.net.now(), format, args})
}

// violation notes that a guarantee was broken.
func (s *story) violation(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.violations = append(s.violations, text)
	s.add("VIOLATION %s", text)
}

func (s *story) call(what, name string) { s.names = append(s.names, what, name) }

// String tells the story.
func (s *story) String() string {
	var text strings.Builder
	for _, l := range s.lines {
		fmt.Fprintf(&text, "%12s  ", seconds(l.at))
		fmt.Fprintf(&text, l.format, l.args...)
		text.WriteByte('\n')
	}
	return strings.NewReplacer(s.names...).Replace(text.String())
}

// problems is what went wrong, shortly.
func (s *story) problems() string {
	return strings.NewReplacer(s.names...).Replace(strings.Join(s.violations, "\n"))
}

func (s *story) hash() uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s.String()))
	return h.Sum64()
}

// command prints a command as a reader of the story wants it.
type command []string

func (c command) String() string {
	switch name := strings.ToLower(c[0]); name {
	case "eval", "evalsha":
		count := integer(c[2])
		keys, args := c[3:3+count], c[3+count:]
		name = scriptName(keys, args)
		switch name {
		case "acquire":
			text := fmt.Sprintf("acquire %s for %s, ttl %s, %s, waiter %s", keys[0], args[0], args[1], args[2], args[5])
			if args[6] != "" {
				text += ", place " + args[6]
			}
			return text
		case "release":
			text := fmt.Sprintf("release %s of %s", keys[0], args[0])
			if args[3] != "" {
				text += ", out of the queue"
			}
			return text
		case "free":
			return fmt.Sprintf("free %s of %s", keys[0], args[0])
		case "raise":
			return "raise " + keys[0]
		default:
			return fmt.Sprintf("extend %s of %s to %s", keys[0], args[0], args[1])
		}
	default:
		return strings.Join(c, " ")
	}
}

// seconds prints a time of the simulation.
func seconds(d time.Duration) string { return fmt.Sprintf("%.6f", d.Seconds()) }
