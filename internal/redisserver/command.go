package redisserver

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// How long a server may take to answer: one of many that are asked the same, and one
// that has to, be the machine ever so busy.
const (
	soon   = time.Second
	atLast = 10 * time.Second
)

// do sends one command, over a connection of its own: a client's pool would give out
// connections to the server as it was before Kill, and remember for a while that it
// did not answer. The reply is a string, an int64, a list ([]any) of these, or nil.
func (s *Server) do(args ...any) (any, error) { return s.doWithin(atLast, args...) }

func (s *Server) doWithin(timeout time.Duration, args ...any) (any, error) {
	reply, err := s.exchange(timeout, args)
	if err != nil {
		return nil, fmt.Errorf("%s: %v: %w", s.Addr, args[:min(3, len(args))], err)
	}
	return reply, nil
}

func (s *Server) exchange(timeout time.Duration, args []any) (any, error) {
	conn, err := net.DialTimeout("tcp", s.Addr, timeout)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(timeout))
	var request strings.Builder
	fmt.Fprintf(&request, "*%d\r\n", len(args))
	for _, arg := range args {
		text := fmt.Sprint(arg)
		fmt.Fprintf(&request, "$%d\r\n%s\r\n", len(text), text)
	}
	if _, err := io.WriteString(conn, request.String()); err != nil {
		return nil, err
	}
	return readReply(bufio.NewReader(conn))
}

func readReply(r *bufio.Reader) (any, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return nil, errors.New("an empty reply")
	}
	switch kind, rest := line[0], line[1:]; kind {
	case '+':
		return rest, nil
	case '-':
		return nil, errors.New(rest)
	case ':':
		return strconv.ParseInt(rest, 10, 64)
	case '$', '*':
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return nil, err
		}
		if kind == '$' {
			text := make([]byte, n+len("\r\n"))
			_, err := io.ReadFull(r, text)
			return string(text[:n]), err
		}
		list := make([]any, n)
		for i := range list {
			if list[i], err = readReply(r); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	return nil, fmt.Errorf("a reply that begins with %q", line)
}

// askAll puts a question to all servers at once, and returns the answers of those
// that give one. One that is frozen is waited for only for a moment, unless there are
// so many as to be just slow.
func askAll[T any](servers []*Server, question func(s *Server, timeout time.Duration) (T, error)) (map[*Server]T, error) {
	var answers map[*Server]T
	var err error
	for _, timeout := range []time.Duration{soon, atLast} {
		var mu sync.Mutex
		var wait sync.WaitGroup
		answers, err = make(map[*Server]T), nil
		for _, s := range servers {
			wait.Go(func() {
				answer, e := question(s, timeout)
				mu.Lock()
				defer mu.Unlock()
				if e != nil {
					err = e
				} else {
					answers[s] = answer
				}
			})
		}
		wait.Wait()
		if len(answers) > len(servers)/2 {
			break
		}
	}
	if len(answers) == 0 {
		return nil, fmt.Errorf("nobody answers: %w", err)
	}
	return answers, nil
}

// text makes a reply a string.
func text(reply any, err error) (string, error) {
	text, _ := reply.(string)
	return text, err
}

// list makes a reply a list.
func list(reply any, err error) ([]any, error) {
	list, _ := reply.([]any)
	return list, err
}

// pairs makes a map of a list of names and values.
func pairs(list any) map[string]string {
	values, _ := list.([]any)
	m := make(map[string]string)
	for i := 0; i+1 < len(values); i += 2 {
		m[fmt.Sprint(values[i])] = fmt.Sprint(values[i+1])
	}
	return m
}
