package redislock

import (
	"crypto/sha1"
	"embed"
	"encoding/hex"
	"strings"
)

// The scripts. What they are given, what they answer and what holds throughout
// stands at the head of each.
var (
	//go:embed lua
	texts embed.FS

	acquireScript = newScript(0, "acquire.lua")
	releaseScript = newScript(1, "release.lua")
	extendScript  = newScript(2, "extend.lua")
	raiseScript   = newScript(3, "raise.lua")
	voteScript    = newScript(4, "vote.lua")
	confirmScript = newScript(5, "confirm.lua")
	freeScript    = newScript(6, "free.lua")
	probeScript   = newScript(7, "probe.lua")
)

const scripts = 8

type script struct {
	index     int // in loaded
	text, sha any // strings
}

func newScript(index int, name string) *script {
	text := textOf(name)
	sum := sha1.Sum([]byte(text))
	return &script{index, text, hex.EncodeToString(sum[:])}
}

// textOf returns the text of a script with those that it includes, each at the
// place where it is needed first: to define a function takes time as well.
func textOf(name string) string {
	file, err := texts.ReadFile("lua/" + name)
	if err != nil {
		panic(err) // they are part of the program
	}
	var text strings.Builder
	for line := range strings.Lines(string(file)) {
		if included, ok := strings.CutPrefix(strings.TrimSpace(line), "-- include "); ok {
			line = textOf(included)
		}
		text.WriteString(line)
	}
	return text.String()
}

// loaded tells which scripts Redis is thought to have. Wrong guesses are
// answered NOSCRIPT and mended by the sender.
type loaded [scripts]bool

// appendCall appends the beginning of EVALSHA, or of EVAL where the script has
// to be sent along.
func (s *script) appendCall(args []any, have *loaded) []any {
	if have[s.index] {
		return append(args, "evalsha", s.sha)
	}
	have[s.index] = true
	return append(args, "eval", s.text)
}
