// Chaos attacks processes that use the library, and the Redis that they use, and
// checks what they did and saw against the guarantees of the library.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "worker" {
		var load workload
		if err := json.Unmarshal([]byte(os.Args[2]), &load); err != nil {
			exit(err)
		}
		if err := runWorker(load); err != nil {
			exit(err)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "resource" {
		exit(serveResource(os.Args[2]))
	}
	var (
		seed  = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of all random choices")
		total = flag.Duration("for", 4*time.Minute, "about how long the run takes in all")
		only  = flag.String("fault", ".", "regular expression of the faults to inject")
		keep  = flag.String("keep", "", "folder for the logs of all episodes; empty: only those of failures are kept")
	)
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		exit(err)
	}
	var chosen []fault
	for _, f := range faults() {
		if pattern.MatchString(f.name) {
			chosen = append(chosen, f)
		}
	}
	if len(chosen) == 0 {
		exit(fmt.Errorf("no fault is called like %q", *only))
	}
	root := *keep
	if root == "" {
		if root, err = os.MkdirTemp("", "chaos-"); err != nil {
			exit(err)
		}
	}
	hurt := *total/time.Duration(len(chosen)) - 4*time.Second
	for i, f := range chosen {
		dir := filepath.Join(root, fmt.Sprintf("%02d", i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			exit(err)
		}
		e := &episode{fault: f, seed: *seed, dir: dir, rng: rand.New(rand.NewPCG(*seed, hash(f.name))), injected: make(map[string]int)}
		began := time.Now()
		out, err := e.run(max(hurt, time.Second))
		if err != nil {
			exit(err)
		}
		fmt.Println(f.name, len(out.events), out.injected, out.broken, out.leftover, time.Since(began))
	}
}

func hash(text string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	return h.Sum64()
}
