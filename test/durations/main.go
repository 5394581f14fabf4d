// Durations measures how long each call takes with Redis near, far away, frozen and
// gone, under contexts that have no end.
//
//	go run ./durations [-report ../docs/durations.md]
//
// in the folder test. It needs a redis-server, and takes about a minute.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redisserver"
)

func main() {
	report := flag.String("report", "", "write the table to this `file`")
	flag.Parse()
	redis.SetLogger(quiet{})
	if err := run(*report); err != nil {
		fmt.Fprintln(os.Stderr, "durations:", err)
		os.Exit(1)
	}
}

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// A state is what Redis is in as the calls are made.
type state struct {
	name    string
	nodes   int           // of a quorum; 0: there is one server
	way     time.Duration // a round trip
	spoil   func(*redisserver.Server) error
	restore func(*redisserver.Server) error
	change  func(*redis.Options)
}

func states() []state {
	kill := func(s *redisserver.Server) error { s.Kill(); return nil }
	run := (*redisserver.Server).Run
	freeze, thaw := (*redisserver.Server).Freeze, (*redisserver.Server).Thaw
	patient := func(o *redis.Options) { o.ReadTimeout, o.DialTimeout = -1, time.Minute }
	lockOut := func(s *redisserver.Server) error { // as if the password had been changed
		client := redis.NewClient(&redis.Options{Addr: s.Addr})
		defer client.Close()
		ctx := context.Background()
		if err := client.ConfigSet(ctx, "requirepass", "another").Err(); err != nil {
			return err
		}
		return client.ClientKillByFilter(ctx, "type", "normal", "skipme", "yes").Err()
	}
	return []state{
		{name: "near"},
		{name: "round trip 300 ms", way: 300 * time.Millisecond},
		{name: "round trip 800 ms", way: 800 * time.Millisecond},
		{name: "frozen", spoil: freeze, restore: thaw},
		{name: "frozen, `ReadTimeout` -1", spoil: freeze, restore: thaw, change: patient},
		{name: "gone", spoil: kill, restore: run},
		{name: "gone, `ReadTimeout` -1", spoil: kill, restore: run, change: patient},
		{name: "wrong password", spoil: lockOut},
		{name: "quorum: near", nodes: 3},
		{name: "quorum: frozen", nodes: 3, spoil: freeze, restore: thaw},
		{name: "quorum: gone", nodes: 3, spoil: kill, restore: run},
		{name: "quorum: wrong password", nodes: 3, spoil: lockOut},
	}
}

// The calls, in the order in which they are made. What a call has to have before it, a
// lock that is held, is there from before Redis was spoilt.
var calls = []string{"first `Lock`", "`Lock`", "`TryLock`", "`TryLock`, TTL 1 s", "`Extend`", "`Unlock`", "`Close`"}

func run(report string) error {
	dir, err := os.MkdirTemp("", "durations")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	all := states()
	columns := make([][]time.Duration, len(all))
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, st := range all {
		wg.Go(func() { columns[i], errs[i] = measure(st, dir+fmt.Sprint("/", i)) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	text := table(all, columns)
	if report == "" {
		_, err = fmt.Print(text)
		return err
	}
	return os.WriteFile(report, []byte(text), 0o644)
}

const (
	long = time.Minute
	most = 20 * time.Second // how long a Lock is waited for, which has no bound of its own
)

func measure(st state, dir string) ([]time.Duration, error) {
	var servers []*redisserver.Server
	for i := range max(1, st.nodes) {
		own := dir + fmt.Sprint("/", i)
		if err := os.MkdirAll(own, 0o755); err != nil {
			return nil, err
		}
		server, err := redisserver.Start(redisserver.Options{Dir: own})
		if err != nil {
			return nil, err
		}
		defer server.Kill()
		servers = append(servers, server)
	}
	all := func(do func(*redisserver.Server) error) error {
		for _, server := range servers {
			if do == nil {
				break
			}
			if err := do(server); err != nil {
				return err
			}
		}
		return nil
	}
	manager := func() (m *redislock.LockManager, end func(), err error) {
		var clients []redis.UniversalClient
		for _, server := range servers {
			o := &redis.Options{Addr: server.Addr, Dialer: slowly(st.way)}
			if st.change != nil {
				st.change(o)
			}
			clients = append(clients, redis.NewClient(o))
		}
		end = func() {
			for _, client := range clients {
				_ = client.Close()
			}
		}
		if st.nodes > 0 {
			m, err = redislock.NewQuorumManager(clients)
		} else {
			m, err = redislock.NewLockManager(clients[0])
		}
		return m, end, err
	}
	m, end, err := manager()
	if err != nil {
		return nil, err
	}
	defer end()
	fresh, endFresh, err := manager()
	if err != nil {
		return nil, err
	}
	defer endFresh()
	ctx := context.Background()
	held := m.Lock(ctx, "held", long)
	if r := held.Wait(); !r.OK() {
		return nil, r.Err
	}
	if err := held.Extend(ctx, long); err != nil {
		return nil, err
	}
	if err := all(st.spoil); err != nil {
		return nil, err
	}
	lock := func(m *redislock.LockManager, key string) func() {
		return func() {
			within, cancel := context.WithTimeout(ctx, most)
			defer cancel()
			m.Lock(within, key, long).Wait()
		}
	}
	took := []time.Duration{
		duration(lock(fresh, "first")),
		duration(lock(m, "second")),
		duration(func() { _, _ = m.TryLock(ctx, "tried", long) }),
		duration(func() { _, _ = m.TryLock(ctx, "tried shortly", time.Second) }),
		duration(func() { _ = held.Extend(ctx, long) }),
		duration(func() { _ = held.Unlock() }),
		duration(func() { _ = m.Close() }),
	}
	if err := all(st.restore); err != nil {
		return nil, err
	}
	_ = fresh.Close() // which may not yet have reached a server that has just come back
	return took, nil
}

func duration(call func()) time.Duration {
	began := time.Now()
	call()
	return time.Since(began)
}

func table(all []state, columns [][]time.Duration) string {
	var b strings.Builder
	b.WriteString(head)
	b.WriteString("| Redis |")
	for _, call := range calls {
		b.WriteString(" " + call + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(calls)) + "\n")
	for i, st := range all {
		b.WriteString("| " + st.name + " |")
		for _, took := range columns[i] {
			b.WriteString(" " + shown(took) + " |")
		}
		b.WriteString("\n")
	}
	b.WriteString(tail)
	return b.String()
}

func shown(d time.Duration) string {
	switch {
	case d >= most:
		return "within the context"
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

const head = `# How long calls take

As measured by ` + "`go run ./durations -report ../docs/durations.md`" + ` in the folder test, on one machine; the TTL is a minute, and no context ends.
"Frozen" is a Redis that was stopped (SIGSTOP) and keeps its connections, "gone" one whose address refuses them, "wrong password"
one that serves none of the client's connections. A quorum has 3 nodes, and all are in that state. The
first ` + "`Lock`" + ` is that of a manager that has never reached Redis, the others have a connection. A
connection takes five round trips to be made, and the first call of a script one more.

`

const tail = `
What is promised, with contexts that have no end:

| call | at most |
|---|---|
| ` + "`Lock`, `Wait`, `Do`" + ` | no bound: they wait for their turn. Where Redis, or a majority of a quorum's nodes, refuses connections: 2 s if it was never reached, else 5 s |
| ` + "`TryLock`" + ` | 5 s, or the TTL if that is shorter |
| ` + "`Extend`" + ` | 10 s, or until the lease ends |
| ` + "`Unlock`" + ` | 10 s, or the TTL if that is shorter; the manager goes on behind it until the lease ends |
| ` + "`Close`" + ` | 2 s |
| ` + "`NewLockManager`, `NewQuorumManager`" + ` | at once; with ` + "`KeyspaceRequired`" + ` 5 s |

Every call that takes a context returns as that ends, whatever the client's time-outs are. ` + "`" + `Do` + "`" + ` and ` + "`" + `TryDo` + "`" + ` return when fn has, and the
lock is released: like ` + "`" + `Unlock` + "`" + `, also after the context has ended.

Where a client finds its server by others first, the time that this takes comes on top, and is the client's: a ` + "`" + `NewFailoverClient` + "`" + ` asks
one sentinel after the other, each with its ` + "`" + `DialTimeout` + "`" + ` and retries; with all of them dead a first ` + "`" + `Lock` + "`" + ` without a deadline took 20 to
30 s, one by a ` + "`" + `NewFailoverClusterClient` + "`" + ` up to 8 s, and one to a cluster of six dead addresses 2.4 to 4.9 s (go-redis 9.23).
`

// slowly returns a dialer whose connections take a round trip for each answer.
func slowly(way time.Duration) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		time.Sleep(way)
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil || way == 0 {
			return conn, err
		}
		c := &slowConn{Conn: conn, way: way, written: make(chan parcel, 1000)}
		go c.deliver()
		return c, nil
	}
}

// A slowConn delivers what is written later, all in its order: what is written while
// something is on its way is not delayed any longer for that.
type slowConn struct {
	net.Conn
	way     time.Duration
	written chan parcel
}

type parcel struct {
	due  time.Time
	data []byte
}

// deliver ends with the program.
func (c *slowConn) deliver() {
	for p := range c.written {
		time.Sleep(time.Until(p.due))
		_, _ = c.Conn.Write(p.data)
	}
}

func (c *slowConn) Write(p []byte) (int, error) {
	c.written <- parcel{time.Now().Add(c.way), append([]byte(nil), p...)}
	return len(p), nil
}
