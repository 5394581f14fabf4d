package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/redislock/redislock/test/history"
)

// A request asks the guarded resource for a write.
type request struct {
	Key   string `json:"key"`
	Op    string `json:"op"`
	Token int64  `json:"token"`
}

type response struct {
	Accepted bool `json:"accepted"`
}

// serveResource is the process that the locks are there to guard: it takes writes
// and refuses a token lower than one it has seen for the key. It writes its
// address to standard output, and runs until it is killed.
func serveResource(path string) error {
	log, err := history.Create(path, "resource")
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	var mu sync.Mutex
	highest := make(map[string]int64)
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			in, out := json.NewDecoder(bufio.NewReader(conn)), json.NewEncoder(conn)
			for {
				var w request
				if err := in.Decode(&w); err != nil {
					return
				}
				mu.Lock()
				event := history.Event{Kind: history.Accepted, Key: w.Key, Op: w.Op, Token: w.Token, Highest: highest[w.Key]}
				if w.Token < highest[w.Key] {
					event.Kind = history.Refused
				} else {
					highest[w.Key] = w.Token
				}
				log.Add(event)
				mu.Unlock()
				if err := out.Encode(response{event.Kind == history.Accepted}); err != nil {
					return
				}
			}
		}()
	}
}

// A writer writes to the guarded resource. It is used by one goroutine.
type writer struct {
	conn net.Conn
	in   *json.Decoder
	out  *json.Encoder
}

func dialResource(addr string) (*writer, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &writer{conn, json.NewDecoder(bufio.NewReader(conn)), json.NewEncoder(conn)}, nil
}

func (w *writer) write(r request) (accepted bool, err error) {
	if err := w.out.Encode(r); err != nil {
		return false, err
	}
	var answer response
	err = w.in.Decode(&answer)
	return answer.Accepted, err
}

func exit(err error) {
	fmt.Fprintln(os.Stderr, "chaos:", err)
	os.Exit(1)
}
