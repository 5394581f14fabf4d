// Quickstart: several callers want one key, and get it one after another in the
// order in which they came.
//
// It runs on an embedded miniredis, unless REDIS_URL names a Redis. Started twice
// at once on the same Redis, the two processes share one line.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock"
)

const (
	callers = 5
	rounds  = 2
	ttl     = 10 * time.Second
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	client, where, err := connect()
	if err != nil {
		return err
	}
	defer client.Close()

	manager, err := redislock.NewLockManager(client)
	if err != nil {
		return err
	}
	defer manager.Close()

	fmt.Printf("process %d on %s\n", os.Getpid(), where)
	fmt.Println("time          process  caller  fencing token     waited")
	var wg sync.WaitGroup
	for caller := 1; caller <= callers; caller++ {
		wg.Go(func() {
			for range rounds {
				if err := work(ctx, manager, caller); err != nil {
					log.Printf("caller %d: %v", caller, err)
					return
				}
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// work is what a caller does: wait for its turn, work, and let go.
func work(ctx context.Context, manager *redislock.LockManager, caller int) error {
	lock := manager.Lock(ctx, "quickstart", ttl)
	defer lock.Unlock()
	result := lock.Wait()
	if !result.OK() {
		return result.Err
	}
	fmt.Printf("%s  %7d  %6d  %d  %6d ms\n", time.Now().Format("15:04:05.000"), os.Getpid(), caller,
		result.Token, result.Waited.Milliseconds())
	time.Sleep(100 * time.Millisecond) // nobody else is at it now
	return nil
}

// connect returns a client of the Redis that REDIS_URL names, or of one of its
// own that lives in this process.
func connect() (*redis.Client, string, error) {
	if url := os.Getenv("REDIS_URL"); url != "" {
		options, err := redis.ParseURL(url)
		if err != nil {
			return nil, "", fmt.Errorf("REDIS_URL: %w", err)
		}
		return redis.NewClient(options), options.Addr, nil
	}
	server, err := miniredis.Run()
	if err != nil {
		return nil, "", err
	}
	server.ClockTTL(true) // leases end as time goes by
	return redis.NewClient(&redis.Options{Addr: server.Addr()}), "an embedded miniredis (set REDIS_URL for a real Redis)", nil
}
