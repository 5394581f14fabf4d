package redislock

import (
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
)

// The scripts. What they are given, what they answer and what holds throughout
// stands at the head of each.
var (
	//go:embed lua/handover.lua
	handoverLua string
	//go:embed lua/acquire.lua
	acquireLua string
	//go:embed lua/release.lua
	releaseLua string
	//go:embed lua/extend.lua
	extendLua string

	acquireScript = newScript(0, handoverLua+acquireLua)
	releaseScript = newScript(1, handoverLua+releaseLua)
	extendScript  = newScript(2, extendLua)
)

const scripts = 3

type script struct {
	index     int // in loaded
	text, sha string
}

func newScript(index int, text string) *script {
	sum := sha1.Sum([]byte(text))
	return &script{index, text, hex.EncodeToString(sum[:])}
}

// loaded tells which scripts Redis is thought to have. Wrong guesses are
// answered NOSCRIPT and mended by the sender.
type loaded [scripts]bool

// call returns the arguments of EVALSHA, or of EVAL where the script has to be
// sent along.
func (s *script) call(have *loaded, keysAndArgs int) []any {
	args := make([]any, 0, 3+keysAndArgs)
	if have[s.index] {
		return append(args, "evalsha", s.sha)
	}
	have[s.index] = true
	return append(args, "eval", s.text)
}
