package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock"
)

// connect returns a client of a Redis that lives in this process.
func connect() (client *redis.Client, closeAll func()) {
	server, err := miniredis.Run()
	if err != nil {
		panic(err)
	}
	server.ClockTTL(true)
	client = redis.NewClient(&redis.Options{Addr: server.Addr()})
	return client, func() {
		client.Close()
		server.Close()
	}
}

func Example() {
	client, closeAll := connect() // in a service: redis.NewClient(…)
	defer closeAll()
	manager, err := redislock.NewLockManager(client)
	if err != nil {
		panic(err)
	}
	defer manager.Close()

	lock := manager.Lock(context.Background(), "order:42", 10*time.Second)
	defer lock.Unlock()
	if result := lock.Wait(); !result.OK() {
		fmt.Println("not acquired:", result.Err)
		return
	}
	fmt.Println("working on", lock.Key())
	// Output: working on order:42
}

func ExampleLockManager_Lock_deadline() {
	client, closeAll := connect()
	defer closeAll()
	manager, _ := redislock.NewLockManager(client)
	defer manager.Close()

	first := manager.Lock(context.Background(), "report", time.Minute)
	defer first.Unlock()
	first.Wait()

	// Wait for one's turn no longer than this.
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	second := manager.Lock(ctx, "report", time.Minute)
	defer second.Unlock()
	fmt.Println(errors.Is(second.Wait().Err, context.DeadlineExceeded))
	// Output: true
}

func ExampleLockManager_TryLock() {
	client, closeAll := connect()
	defer closeAll()
	manager, _ := redislock.NewLockManager(client)
	defer manager.Close()

	lock, err := manager.TryLock(context.Background(), "nightly-job", time.Minute)
	if errors.Is(err, redislock.ErrNotAcquired) {
		fmt.Println("another instance is at it")
		return
	} else if err != nil {
		fmt.Println("Redis has a problem:", err)
		return
	}
	defer lock.Unlock()
	_, err = manager.TryLock(context.Background(), "nightly-job", time.Minute)
	fmt.Println(err)
	// Output: redislock: trylock "nightly-job": lock not acquired
}

func ExampleLockManager_Do() {
	client, closeAll := connect()
	defer closeAll()
	manager, _ := redislock.NewLockManager(client)
	defer manager.Close()

	err := manager.Do(context.Background(), "import", 10*time.Second, func(ctx context.Context) error {
		// ctx is cancelled should the lock be lost.
		fmt.Println("importing, fenced:", redislock.FromContext(ctx).Token() > 0)
		return ctx.Err()
	}, redislock.WithAutoRenew(time.Hour))
	fmt.Println(err)
	// Output:
	// importing, fenced: true
	// <nil>
}

// The storage that the lock protects remembers the highest token it has seen,
// and refuses lower ones. So a holder that slept beyond its lease cannot harm it.
func ExampleLock_Token() {
	client, closeAll := connect()
	defer closeAll()
	manager, _ := redislock.NewLockManager(client)
	defer manager.Close()

	var highest int64
	write := func(text string, token int64) {
		// In SQL: UPDATE … SET token = $1 … WHERE id = $2 AND token <= $1
		if token < highest {
			fmt.Println(text, "refused")
			return
		}
		highest = token
		fmt.Println(text, "written")
	}

	slow := manager.Lock(context.Background(), "file", 50*time.Millisecond)
	slow.Wait() // and then it falls asleep: its lease ends
	next := manager.Lock(context.Background(), "file", 10*time.Second)
	defer next.Unlock()
	next.Wait()

	write("next", next.Token())
	write("slow", slow.Token())
	// Output:
	// next written
	// slow refused
}

func ExampleLockManager_Acquire() {
	client, closeAll := connect()
	defer closeAll()
	manager, _ := redislock.NewLockManager(client)
	defer manager.Close()

	first, _ := manager.Acquire(context.Background(), "report", time.Minute)
	defer first.Unlock()
	_, err := manager.Acquire(context.Background(), "report", time.Minute,
		redislock.WithWaitTimeout(20*time.Millisecond)) // of which the context knows nothing
	fmt.Println(err)
	// Output: redislock: acquire "report": lock not acquired: its turn did not come within 20ms
}

// One of all processes does what is due, the others go on without.
func ExampleLockManager_TryDo() {
	client, closeAll := connect()
	defer closeAll()
	manager, _ := redislock.NewLockManager(client)
	defer manager.Close()

	ran, err := manager.TryDo(context.Background(), "nightly", time.Minute, func(ctx context.Context) error {
		fmt.Println("cleaning up")
		return nil
	})
	fmt.Println(ran, err)
	// Output:
	// cleaning up
	// true <nil>
}

// A service that is told to end lets the work under way come to its end, for as long as
// it is given.
func ExampleLockManager_Shutdown() {
	client, closeAll := connect()
	defer closeAll()
	manager, _ := redislock.NewLockManager(client)

	lock, _ := manager.Acquire(context.Background(), "order:42", time.Minute, redislock.WithAutoRenew(time.Hour))
	go func() {
		time.Sleep(50 * time.Millisecond) // the work
		fmt.Println("work done, lock held:", lock.Err() == nil)
		lock.Unlock()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	fmt.Println(manager.Shutdown(ctx))
	// Output:
	// work done, lock held: true
	// <nil>
}

// Requests that are made while the lock is held end with it.
func ExampleLock_Context() {
	client, closeAll := connect()
	defer closeAll()
	manager, _ := redislock.NewLockManager(client)
	defer manager.Close()

	lock, _ := manager.Acquire(context.Background(), "device", 50*time.Millisecond)
	defer lock.Unlock()
	ctx, cancel := lock.Context(context.Background())
	defer cancel()
	<-ctx.Done() // as a slow request would
	fmt.Println(context.Cause(ctx))
	// Output: redislock: acquire "device": lock lost: the lease ran out
}

func ExampleLock_Done() {
	client, closeAll := connect()
	defer closeAll()
	manager, _ := redislock.NewLockManager(client)
	defer manager.Close()

	lock := manager.Lock(context.Background(), "device", 50*time.Millisecond)
	defer lock.Unlock()
	lock.Wait()
	select {
	case <-lock.Done():
		fmt.Println("stop:", lock.Err())
	case <-time.After(time.Minute):
		fmt.Println("work done")
	}
	// Output: stop: redislock: lock "device": lock lost: the lease ran out
}

func ExampleWithAutoRenew() {
	client, closeAll := connect()
	defer closeAll()
	manager, _ := redislock.NewLockManager(client)
	defer manager.Close()

	// A short TTL, so that others need not wait long should this process die; and
	// no more than an hour, should it get stuck.
	lock := manager.Lock(context.Background(), "leader", 300*time.Millisecond, redislock.WithAutoRenew(time.Hour))
	defer lock.Unlock()
	lock.Wait()
	time.Sleep(500 * time.Millisecond)
	fmt.Println(lock.Err())
	// Output: <nil>
}

// Any one of the three servers may fail without a lock being lost or refused. They
// must not replicate each other.
func ExampleNewQuorumManager() {
	var clients []redis.UniversalClient
	for range 3 {
		client, closeAll := connect() // to three servers
		defer closeAll()
		clients = append(clients, client)
	}
	manager, err := redislock.NewQuorumManager(clients)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer manager.Close()

	lock := manager.Lock(context.Background(), "order:42", 10*time.Second)
	defer lock.Unlock()
	fmt.Println(lock.Wait().OK())
	// Output: true
}
