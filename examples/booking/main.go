// Booking is an HTTP service that books lessons from a student's remaining
// hours. Several processes of it may run at once on one database file and one
// Redis: a lock per student keeps them from selling the same hour twice, and the
// fencing token keeps out whoever lost the lock without noticing.
//
// store.go has the logic that oversells by itself and the check of the token,
// server.go has the lock.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redislock/redislock"
)

const (
	startTimeout = 10 * time.Second
	// Requests that wait for a lock when the service is told to stop get to
	// their end first.
	stopTimeout = lockWait + 5*time.Second
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "booking:", err)
		os.Exit(1)
	}
}

// run serves until SIGINT or SIGTERM.
func run(args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("booking", flag.ContinueOnError)
	addr := flags.String("addr", "127.0.0.1:8080", "address to listen on")
	path := flags.String("db", "", "database file (default: booking.db in a new temporary folder)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))

	client, closeRedis, err := connect(os.Getenv("REDIS_URL"), out)
	if err != nil {
		return err
	}
	defer closeRedis()

	if *path == "" {
		dir, err := os.MkdirTemp("", "booking-")
		if err != nil {
			return err
		}
		*path = filepath.Join(dir, "booking.db")
	}
	fmt.Fprintln(out, "database:", *path)
	store, err := openStore(*path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.close()) }()

	manager, err := redislock.NewLockManager(client, redislock.WithPrefix("booking:"), redislock.WithLogger(log))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, manager.Close()) }()

	// Where no token is needed Do is all it takes: of several processes that
	// start together, one at a time changes the schema. A Redis that cannot be
	// reached shows here, too.
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := manager.Do(starting, "schema", lockLease, store.prepare); err != nil {
		return fmt.Errorf("prepare the database: %w", err)
	}

	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "listening on http://%s\n", listener.Addr())
	return serve(ctx, stop, listener, newServer(manager, store, log).handler())
}

// serve returns once ctx has ended and the requests under way are answered.
// A second signal, after release, kills the process as usual.
func serve(ctx context.Context, release func(), listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	release()
	stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		return errors.Join(err, server.Close())
	}
	return nil
}

// connect returns a client of the Redis at url. Without one it starts a Redis
// inside this process, which no other process can share.
func connect(url string, out io.Writer) (client *redis.Client, closeAll func(), err error) {
	if url != "" {
		options, err := redis.ParseURL(url)
		if err != nil {
			return nil, nil, fmt.Errorf("REDIS_URL: %w", err)
		}
		client := redis.NewClient(options)
		return client, func() { client.Close() }, nil
	}
	embedded := miniredis.NewMiniRedis()
	embedded.ClockTTL(true) // else leases would never end
	if err := embedded.Start(); err != nil {
		return nil, nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	fmt.Fprintln(out, "redis: embedded, for this process alone; set REDIS_URL to run several")
	client = redis.NewClient(&redis.Options{Addr: embedded.Addr()})
	return client, func() { client.Close(); embedded.Close() }, nil
}
