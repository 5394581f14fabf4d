// Package aof reads the append-only files of a Redis 7 server as the record of
// what truly happened: every write, in the order in which the server made it.
//
// The server has to run with Settings. What Redis 7.0.15 writes, as found out on a real server:
//
//   - SET with NX and PX becomes SET key value PXAT ms. The time is the clock's at
//     that very SET, also inside a script; PEXPIRE becomes PEXPIREAT.
//   - What a script or a transaction writes stands between MULTI and EXEC, unless
//     it is one command only. An expired key that it comes across is unlinked in
//     there.
//   - ZPOPMIN does not name what it popped, so the sorted sets have to be replayed.
//   - Commands that changed nothing are missing: ZADD NX of a member that is
//     there, ZADD GT of a lower score, DEL and ZREM of what is not there. A sorted
//     set that becomes empty vanishes without a command.
//   - #TS: is written before the first command of a new second. It is the time at
//     which that command began, and never goes back.
//   - PEXPIRE with 0 or less reads UNLINK, too. FLUSHALL stands as it was sent.
//   - The file is written before the answers are sent: what a client knows of is
//     in there.
package aof

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Settings are the arguments of a redis-server whose file Read understands, in the
// folder appendonlydir.
var Settings = []string{
	"--appendonly", "yes", "--aof-timestamp-enabled", "yes", "--aof-use-rdb-preamble", "no",
	// Written before each reply: kill -9 loses nothing of what was answered.
	"--appendfsync", "no",
	// A rewrite would drop the history.
	"--auto-aof-rewrite-percentage", "0",
	// Expiry and eviction show as UNLINK, an owner's deletion as DEL.
	"--lazyfree-lazy-expire", "yes", "--lazyfree-lazy-eviction", "yes",
}

// An Entry is one command that changed something.
type Entry struct {
	Serial int      // its place in the whole history, from 1
	Step   int      // the same for all commands of one script or transaction: they took effect together
	Second int64    // Unix time when the step began, cut off to seconds; 0: unknown
	Args   []string // the command, in capitals, and its arguments

	// When the step took place, if that is known from the whole history of a server, of
	// which this is a part: see Log.Span. Both 0: not known.
	Earliest, Latest int64
}

// Restarted is the command of the entry that stands for a restart without data.
const Restarted = "RESTARTED"

// errCut: the file ends in the middle of something, as kill -9 leaves it.
var errCut = errors.New("cut off")

// parser turns files, one after the other, into entries.
type parser struct {
	entries []Entry
	step    int
	second  int64
	db      int
	inMulti bool
	begin   int // of the open MULTI in entries
}

// parse reads one file. It returns errCut if the file ends within a command or a
// transaction; what is whole before that is taken in.
func (p *parser) parse(r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<16)
	if magic, _ := in.Peek(5); bytes.Equal(magic, []byte("REDIS")) {
		return errors.New("begins with an RDB preamble: aof-use-rdb-preamble must be no")
	}
	for {
		switch first, err := in.Peek(1); {
		case err == io.EOF && p.inMulti:
			return p.cut()
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case first[0] == '#':
			line, err := readLine(in)
			if err != nil {
				return p.cutOr(err)
			}
			if text, ok := strings.CutPrefix(line, "#TS:"); ok {
				if p.second, err = strconv.ParseInt(text, 10, 64); err != nil {
					return fmt.Errorf("annotation %q: %w", line, err)
				}
			}
		default:
			args, err := readCommand(in)
			if err != nil {
				return p.cutOr(err)
			}
			if err := p.take(args); err != nil {
				return err
			}
		}
	}
}

func (p *parser) cutOr(err error) error {
	if errors.Is(err, errCut) {
		return p.cut()
	}
	return err
}

// cut drops a transaction that was not finished, as Redis does when it loads.
func (p *parser) cut() error {
	if p.inMulti {
		p.entries, p.inMulti = p.entries[:p.begin], false
	}
	return errCut
}

func (p *parser) take(args []string) error {
	args[0] = strings.ToUpper(args[0])
	switch args[0] {
	case "SELECT":
		if len(args) != 2 {
			return fmt.Errorf("unexpected %q", args)
		}
		var err error
		p.db, err = strconv.Atoi(args[1])
		return err
	case "MULTI":
		p.inMulti, p.begin = true, len(p.entries)
		p.step++
		return nil
	case "EXEC":
		p.inMulti = false
		return nil
	}
	if !p.inMulti {
		p.step++
	}
	// The library is looked at in database 0; the rest is somebody else's.
	if p.db == 0 || args[0] == "FLUSHALL" {
		p.add(args)
	}
	return nil
}

func (p *parser) add(args []string) {
	p.entries = append(p.entries, Entry{
		Serial: len(p.entries) + 1, Step: p.step, Second: p.second, Args: args,
	})
}

// restarted notes that the server began anew, with nothing.
func (p *parser) restarted() {
	p.step++
	p.db, p.second = 0, 0
	p.add([]string{Restarted})
}

func readLine(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	if err == io.EOF {
		return "", errCut
	}
	return strings.TrimRight(line, "\r\n"), err
}

// readCommand reads an array of bulk strings.
func readCommand(in *bufio.Reader) ([]string, error) {
	count, err := readLength(in, '*')
	if err != nil {
		return nil, err
	}
	if count == 0 {
		return nil, errors.New("empty command")
	}
	args := make([]string, count)
	for i := range args {
		length, err := readLength(in, '$')
		if err != nil {
			return nil, err
		}
		text := make([]byte, length+2)
		if _, err := io.ReadFull(in, text); err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil, errCut
		} else if err != nil {
			return nil, err
		}
		args[i] = string(text[:length])
	}
	return args, nil
}

func readLength(in *bufio.Reader, mark byte) (int, error) {
	line, err := readLine(in)
	if err != nil {
		return 0, err
	}
	if line == "" || line[0] != mark {
		return 0, fmt.Errorf("%q where %q was expected", line, mark)
	}
	n, err := strconv.Atoi(line[1:])
	if err != nil || n < 0 || n > 1<<29 {
		return 0, fmt.Errorf("length %q", line)
	}
	return n, nil
}
