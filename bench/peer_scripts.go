package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// What the promises of the library take at least: its own scripts, under a client
// that does nothing else. It believes that every answer comes, that nobody leaves,
// and that no lease ends.
var scriptsPeer = contender{
	name: "the scripts alone", role: floor, line: true,
	open: opensLine(scriptedLine),
	best: linePeer.best,
	why:  "It shows what the library's scripts take, without the library.",
}

var scriptedLine = lineRules{
	stand: func(ctx context.Context, p *lineProcess, key, value string, seq int64) (bool, error) {
		reply, err := libraryAcquire().Run(ctx, p.client, lineKeys(key),
			value, p.ttl.Milliseconds(), "join", p.name, "", seq, "").Slice()
		if err != nil {
			return false, err
		}
		if reply[0] == int64(0) && reply[5] != "" {
			return false, fmt.Errorf("the line of %s stood still: somebody's lease has ended", key)
		}
		return reply[0] == int64(1), nil
	},
	hand: func(ctx context.Context, p *lineProcess, key, value string) (string, error) {
		reply, err := libraryRelease().Run(ctx, p.client, lineKeys(key), value, p.name, "", "").Result()
		if err != nil {
			return "", err
		}
		if next, ok := reply.([]any); ok {
			return next[5].(string), nil
		}
		if reply == int64(0) {
			return "", fmt.Errorf("%s was not %s's", key, value)
		}
		return "", nil
	},
	granted: func(message string) string {
		parts := strings.SplitN(message, " ", 6)
		length, _ := strconv.Atoi(parts[4])
		return parts[5][length:]
	},
}

func lineKeys(key string) []string {
	return []string{key, "queue:" + key, "fence", "shortest:" + key, "skipped:" + key}
}

var (
	libraryAcquire = libraryScript("acquire.lua")
	libraryRelease = libraryScript("release.lua")
	include        = regexp.MustCompile(`(?m)^\s*-- include (\S+)\n`)
)

// libraryScript reads a script as it stands in the repository, once it is needed.
func libraryScript(name string) func() *redis.Script {
	return sync.OnceValue(func() *redis.Script { return redis.NewScript(scriptText(name)) })
}

func scriptText(name string) string {
	text, err := os.ReadFile(filepath.Join("..", "lua", name))
	if err != nil {
		panic(err) // go run has the working directory from which it was called
	}
	return include.ReplaceAllStringFunc(string(text), func(line string) string {
		return scriptText(include.FindStringSubmatch(line)[1])
	})
}
