package redislock_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/auth"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/require"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redisserver"
	"github.com/redislock/redislock/internal/redistest"
)

// A kind is a kind of client that users have. The library promises the same with each, so
// each runs the whole suite.
type kind struct {
	name  string
	start func(t *testing.T, g *ground, on *topology) // sets connect and nodes, and build if it is a quorum
}

// TestSuiteOfClients runs the suite with each kind of client, or with a share of them:
// REDISLOCK_TEST_CLIENTS=2/7 is every seventh, from the second on.
func TestSuiteOfClients(t *testing.T) {
	first, step := 1, 1
	if share := os.Getenv("REDISLOCK_TEST_CLIENTS"); share != "" {
		_, err := fmt.Sscanf(share, "%d/%d", &first, &step)
		require.NoError(t, err)
		require.True(t, 1 <= first && first <= step, share)
	}
	g := newGround(t)
	for i, k := range kinds {
		if i%step != first-1 {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			on := &topology{name: k.name, globalOrder: true, tokens: true}
			k.start(t, g, on)
			if on.connect != nil { // else this server has none of the kind
				on.run(t)
			}
		})
	}
}

// kinds are ordered by what they run on. What may be put together in one kind is, where it
// cannot hide what the other does.
var kinds = []kind{
	// A single server.
	{"resp2", onServer(0, func(o *redis.Options) { o.Protocol = 2 })},
	{"resp2-one-connection", onServer(0, func(o *redis.Options) {
		o.Protocol, o.PoolSize, o.MaxActiveConns = 2, 1, 1
		setIfThere(o, "PipelinePoolSize", -1)
	})},
	{"pool-of-one", onServer(0, func(o *redis.Options) { o.PoolSize = 1 })},
	{"no-time-outs", onServer(0, func(o *redis.Options) { o.ReadTimeout, o.WriteTimeout = -1, -1 })},
	{"long-time-outs", onServer(0, func(o *redis.Options) {
		o.ReadTimeout, o.WriteTimeout, o.MaxRetries, o.MinIdleConns = 30*time.Second, 30*time.Second, 10, 5
	})},
	{"contexts-heeded-no-retries", onServer(0, func(o *redis.Options) { o.ContextTimeoutEnabled, o.MaxRetries = true, -1 })},
	{"short-lived-connections", onServer(0, func(o *redis.Options) {
		o.ConnMaxLifetime, o.ConnMaxIdleTime, o.MinIdleConns = 100*time.Millisecond, 50*time.Millisecond, 2
	})},
	{"small-buffers", onServer(0, func(o *redis.Options) {
		o.ReadBufferSize, o.WriteBufferSize = 16, 16
		setIfThere(o, "PipelineReadBufferSize", 16)
		setIfThere(o, "PipelineWriteBufferSize", 16)
	})},
	{"named", onServer(0, func(o *redis.Options) {
		o.ClientName, o.IdentitySuffix = "an-app", "with-locks"
		o.UnstableResp3 = true //lint:ignore SA1019 some programs have it
	})},
	{"anonymous-fifo", onServer(0, func(o *redis.Options) {
		o.DisableIdentity, o.PoolFIFO = true, true
		o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	})},
	{"database", onServer(3, func(o *redis.Options) { o.DB = 3 })},
	{"database-by-select", onServer(3, func(o *redis.Options) {
		o.ClientName = "an-app"
		o.OnConnect = func(ctx context.Context, conn *redis.Conn) error { return conn.Select(ctx, 3).Err() }
	})},
	{"dialer", onServer(0, func(o *redis.Options) { // one that heeds nothing, as there are many
		o.Dialer = func(_ context.Context, _, addr string) (net.Conn, error) { return net.Dial("tcp", addr) }
	})},
	{"limiter", onServer(0, func(o *redis.Options) { o.Limiter = &limiter{refuses: 40} })},
	{"hooks", startHooked},
	{"wrapped", by(func(g *ground) redis.UniversalClient { return metered{newClient(g, nil)} })},
	{"embedded", by(func(g *ground) redis.UniversalClient { return struct{ *redis.Client }{newClient(g, nil)} })},
	{"auto-pipeliner", by(autoPipeliner)},
	{"credentials", rotating(func(o *redis.Options, r *rotation) { o.CredentialsProvider = r.next })},
	{"credentials-by-context-resp2", rotating(func(o *redis.Options, r *rotation) {
		o.Protocol = 2
		o.CredentialsProviderContext = func(context.Context) (string, string, error) {
			user, password := r.next()
			return user, password, nil
		}
	})},
	{"credentials-streamed", rotating(func(o *redis.Options, r *rotation) { o.StreamingCredentialsProvider = r })},
	{"tls", startTLS(3)},
	{"tls-resp2", startTLS(2)},
	{"universal", universal(func(g *ground) *redis.UniversalOptions {
		return &redis.UniversalOptions{Addrs: []string{g.server().Addr}, DB: 2, Protocol: 2}
	})},

	// Sentinel.
	{"failover-resp2-one-connection", onSentinels(func(o *redis.FailoverOptions) {
		o.Protocol, o.PoolSize, o.MaxActiveConns = 2, 1, 1
		setIfThere(o, "PipelinePoolSize", -1)
	})},
	{"failover-database", onSentinels(func(o *redis.FailoverOptions) { o.DB, o.ReadTimeout, o.MaxRetries = 3, 30*time.Second, -1 })},
	{"failover-cluster", onSentinelsByCluster(func(*redis.FailoverOptions) {})},
	{"failover-cluster-random-database", onSentinelsByCluster(func(o *redis.FailoverOptions) { o.RouteRandomly, o.DB = true, 3 })},
	{"failover-cluster-latency-resp2", onSentinelsByCluster(func(o *redis.FailoverOptions) {
		o.RouteByLatency, o.Protocol, o.Dialer = true, 2, dialOnceMade
	})},
	{"universal-sentinel", universal(func(g *ground) *redis.UniversalOptions {
		return &redis.UniversalOptions{Addrs: g.sentinels().Addrs(), MasterName: g.sentinels().Name}
	})},

	// Cluster.
	{"cluster-resp2-one-connection", onCluster(func(o *redis.ClusterOptions) {
		o.Protocol, o.PoolSize, o.MaxActiveConns = 2, 1, 1
		setIfThere(o, "PipelinePoolSize", -1)
	})},
	{"cluster-read-only", onCluster(func(o *redis.ClusterOptions) { o.ReadOnly = true })},
	{"cluster-random", onCluster(func(o *redis.ClusterOptions) { o.RouteRandomly = true })},
	{"cluster-latency-resp2", onCluster(func(o *redis.ClusterOptions) {
		o.RouteByLatency, o.Protocol, o.Dialer = true, 2, dialOnceMade
	})},
	{"cluster-no-time-outs-no-redirects", onCluster(func(o *redis.ClusterOptions) {
		o.ReadTimeout, o.WriteTimeout, o.MaxRetries, o.MaxRedirects = -1, -1, -1, -1
	})},
	{"cluster-short-lived-connections", onCluster(func(o *redis.ClusterOptions) {
		o.ConnMaxLifetime, o.MinIdleConns, o.ReadTimeout = 100*time.Millisecond, 2, 30*time.Second
	})},
	{"cluster-hooks", startHookedCluster},
	{"cluster-embedded", onClusterAs(func(c *redis.ClusterClient) redis.UniversalClient { return struct{ *redis.ClusterClient }{c} })},
	{"universal-cluster", universal(func(g *ground) *redis.UniversalOptions {
		return &redis.UniversalOptions{Addrs: g.cluster().Addrs(), ContextTimeoutEnabled: true}
	})},
	{"cluster-database", startClusterDatabase},

	// Quorum: of clients of several kinds.
	{"quorum-mixed", startMixedQuorum},
}

// The ground is the servers that the kinds share. The first one that needs them starts them.
type ground struct {
	server    func() *redisserver.Server
	sentinels func() *redisserver.Sentinels
	cluster   func() *redisserver.Cluster // with a replica of each master
}

func newGround(t *testing.T) *ground {
	dir := t.TempDir()
	options := func(name string) redisserver.Options {
		own := filepath.Join(dir, name)
		require.NoError(t, os.Mkdir(own, 0o700))
		return redisserver.Options{Dir: own}
	}
	return &ground{
		server: sync.OnceValue(func() *redisserver.Server {
			server, err := redisserver.Start(options("single"))
			require.NoError(t, err)
			t.Cleanup(server.Kill)
			return server
		}),
		sentinels: sync.OnceValue(func() *redisserver.Sentinels {
			sentinels, err := redisserver.StartSentinels(options("sentinels"), 1, 1)
			require.NoError(t, err)
			t.Cleanup(sentinels.Kill)
			return sentinels
		}),
		cluster: sync.OnceValue(func() *redisserver.Cluster {
			cluster, err := redisserver.StartCluster(options("cluster"), 3, 1)
			require.NoError(t, err)
			t.Cleanup(cluster.Kill)
			return cluster
		}),
	}
}

// looksBy says by which client the suite looks at what is in Redis: one of no peculiar kind.
func (on *topology) looksBy(t *testing.T, client redis.UniversalClient) {
	on.nodes = append(on.nodes, client)
	t.Cleanup(func() { client.Close() })
}

func (on *topology) connectsBy(connect func() redis.UniversalClient) {
	on.connect = func() []redis.UniversalClient { return []redis.UniversalClient{connect()} }
}

// setIfThere sets a field that versions of go-redis have since they behave in a way that
// older ones do not know.
func setIfThere(options any, field string, value int) {
	if f := reflect.ValueOf(options).Elem().FieldByName(field); f.IsValid() {
		f.SetInt(int64(value))
	}
}

func newClient(g *ground, change func(*redis.Options)) *redis.Client {
	o := &redis.Options{Addr: g.server().Addr}
	if change != nil {
		change(o)
	}
	return redis.NewClient(o)
}

func onServer(db int, change func(*redis.Options)) func(*testing.T, *ground, *topology) {
	return func(t *testing.T, g *ground, on *topology) {
		on.connectsBy(func() redis.UniversalClient { return newClient(g, change) })
		on.looksBy(t, newClient(g, func(o *redis.Options) { o.DB = db }))
	}
}

// by is for clients of the single server that are of types of their own.
func by(connect func(g *ground) redis.UniversalClient) func(*testing.T, *ground, *topology) {
	return func(t *testing.T, g *ground, on *topology) {
		on.connectsBy(func() redis.UniversalClient { return connect(g) })
		on.looksBy(t, newClient(g, nil))
	}
}

func universal(options func(g *ground) *redis.UniversalOptions) func(*testing.T, *ground, *topology) {
	return func(t *testing.T, g *ground, on *topology) {
		on.connectsBy(func() redis.UniversalClient { return redis.NewUniversalClient(options(g)) })
		on.looksBy(t, redis.NewUniversalClient(options(g)))
	}
}

func failoverOptions(g *ground, change func(*redis.FailoverOptions)) *redis.FailoverOptions {
	o := &redis.FailoverOptions{MasterName: g.sentinels().Name, SentinelAddrs: g.sentinels().Addrs()}
	change(o)
	return o
}

func onSentinels(change func(*redis.FailoverOptions)) func(*testing.T, *ground, *topology) {
	return func(t *testing.T, g *ground, on *topology) {
		on.connectsBy(func() redis.UniversalClient { return redis.NewFailoverClient(failoverOptions(g, change)) })
		db := failoverOptions(g, change).DB
		on.looksBy(t, redis.NewFailoverClient(failoverOptions(g, func(o *redis.FailoverOptions) { o.DB = db })))
	}
}

func onSentinelsByCluster(change func(*redis.FailoverOptions)) func(*testing.T, *ground, *topology) {
	return func(t *testing.T, g *ground, on *topology) {
		on.connectsBy(func() redis.UniversalClient { return made(redis.NewFailoverClusterClient(failoverOptions(g, change))) })
		db := failoverOptions(g, change).DB
		on.looksBy(t, redis.NewFailoverClusterClient(failoverOptions(g, func(o *redis.FailoverOptions) { o.DB = db })))
	}
}

func clusterClient(g *ground, change func(*redis.ClusterOptions)) *redis.ClusterClient {
	o := &redis.ClusterOptions{Addrs: g.cluster().Addrs()}
	if change != nil {
		change(o)
	}
	return made(redis.NewClusterClient(o))
}

// With RouteByLatency, go-redis 9.23 measures how far a server is by a client that is still
// being made, which the race detector minds. So a client is done with before it dials.
var making sync.Mutex

func made(client *redis.ClusterClient) *redis.ClusterClient {
	client.OnNewNode(func(*redis.Client) {
		making.Lock()
		//lint:ignore SA2001 what was written before is seen by whoever locks it next
		making.Unlock()
	})
	return client
}

func dialOnceMade(ctx context.Context, network, addr string) (net.Conn, error) {
	making.Lock()
	//lint:ignore SA2001 see made
	making.Unlock()
	return new(net.Dialer).DialContext(ctx, network, addr)
}

func onCluster(change func(*redis.ClusterOptions)) func(*testing.T, *ground, *topology) {
	return func(t *testing.T, g *ground, on *topology) {
		on.connectsBy(func() redis.UniversalClient { return clusterClient(g, change) })
		on.looksBy(t, clusterClient(g, nil))
	}
}

func onClusterAs(as func(*redis.ClusterClient) redis.UniversalClient) func(*testing.T, *ground, *topology) {
	return func(t *testing.T, g *ground, on *topology) {
		on.connectsBy(func() redis.UniversalClient { return as(clusterClient(g, nil)) })
		on.looksBy(t, clusterClient(g, nil))
	}
}

// autoPipeliner is what go-redis has since version 9.22 in place of a client: whatever is
// called goes out in pipelines. Where it is not there, its client is taken.
func autoPipeliner(g *ground) redis.UniversalClient {
	client := newClient(g, nil)
	method := reflect.ValueOf(client).MethodByName("AutoPipeline")
	if !method.IsValid() {
		return client
	}
	results := method.Call(nil)
	if err, ok := results[1].Interface().(error); ok {
		panic(err)
	}
	return closingBoth{results[0].Interface().(redis.UniversalClient), client}
}

// closingBoth closes the client as well, which its AutoPipeliner leaves open.
type closingBoth struct {
	redis.UniversalClient
	client *redis.Client
}

func (c closingBoth) Close() error { return errors.Join(c.UniversalClient.Close(), c.client.Close()) }

// A looking hook does what programs do that trace and count: it asks each command for all
// that it can be asked, before and after, and changes nothing.
type lookingHook struct{ commands, dials atomic.Int64 }

func (h *lookingHook) look(cmd redis.Cmder) {
	h.commands.Add(1)
	text := cmd.Name() + cmd.FullName() + cmd.String()
	for _, arg := range cmd.Args() {
		text += fmt.Sprint(arg)
	}
	if text == "" || errors.Is(cmd.Err(), redis.ErrClosed) && len(cmd.Args()) == 0 {
		panic("a command without anything")
	}
}

func (h *lookingHook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		h.dials.Add(1)
		return next(ctx, network, addr)
	}
}

func (h *lookingHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		h.look(cmd)
		defer h.look(cmd)
		return next(ctx, cmd)
	}
}

func (h *lookingHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			h.look(cmd)
			defer h.look(cmd)
		}
		if err := next(ctx, cmds); err != nil {
			return fmt.Errorf("as the hook saw it: %w", err)
		}
		return nil
	}
}

func startHooked(t *testing.T, g *ground, on *topology) {
	hook := new(lookingHook)
	on.connectsBy(func() redis.UniversalClient {
		client := newClient(g, nil)
		client.AddHook(hook)
		return client
	})
	on.looksBy(t, newClient(g, nil))
	t.Cleanup(func() { require.Positive(t, hook.commands.Load()*hook.dials.Load(), "the hook has seen nothing") })
}

// startHookedCluster has hooks on the client, and on those of the servers.
func startHookedCluster(t *testing.T, g *ground, on *topology) {
	hook, nodes := new(lookingHook), new(lookingHook)
	on.connectsBy(func() redis.UniversalClient {
		client := clusterClient(g, nil)
		client.AddHook(hook)
		client.OnNewNode(func(node *redis.Client) { node.AddHook(nodes) })
		return client
	})
	on.looksBy(t, clusterClient(g, nil))
	t.Cleanup(func() { require.Positive(t, hook.commands.Load()*nodes.commands.Load(), "the hooks have seen nothing") })
}

// A limiter refuses each so many-th request while refuses is above 0, and all while open is true.
type limiter struct {
	refuses int64
	open    atomic.Bool
	asked   atomic.Int64
}

var errLimited = errors.New("the limiter refuses")

func (l *limiter) Allow() error {
	if n := l.asked.Add(1); l.open.Load() || l.refuses > 0 && n%l.refuses == 0 {
		return errLimited
	}
	return nil
}

func (l *limiter) ReportResult(error) {}

// While a limiter refuses everything, as a circuit breaker does, calls are told what it
// says, soon; who stands in the line stays there; and a release that was refused is made
// up for when the limiter lets through again.
func TestLimiterThatOpens(t *testing.T) {
	server := redistest.Start(t)
	breaker := new(limiter)
	m := newManager(t, server.Client(func(o *redis.Options) { o.Limiter = breaker }))
	watcher := server.Client(nil)
	holder := acquire(t, m, "key", time.Minute)
	waiter := m.Lock(ctx, "key", time.Minute)
	awaitWaiters(t, watcher, "key", 1)

	breaker.open.Store(true)
	_, err := m.TryLock(ctx, "another", time.Minute)
	require.ErrorIs(t, err, errLimited)
	require.NotErrorIs(t, err, redislock.ErrNotAcquired, "it is not known to be taken")
	require.ErrorIs(t, soon(t, m.Lock(ctx, "another", time.Minute)).Err, errLimited)
	require.ErrorIs(t, holder.Extend(ctx, time.Minute), errLimited)
	require.NoError(t, holder.Err())
	require.ErrorIs(t, holder.Unlock(), errLimited)
	require.False(t, closed(waiter.Settled()))

	breaker.open.Store(false)
	serve(t, waiter)
	requireClean(t, watcher)
}

// With MasterName and ReadOnly, go-redis's universal client is one of replicas, to which it
// sends writes as well. Nothing can be locked there, and the caller is told why.
func TestClientOfReplicasIsToldSo(t *testing.T) {
	s := redistest.StartSentinels(t, 1, 1)
	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: s.Addrs(), MasterName: s.Name, ReadOnly: true})
	t.Cleanup(func() { client.Close() })
	m, err := redislock.NewLockManager(client)
	require.NoError(t, err)
	_, err = m.TryLock(ctx, "key", 500*time.Millisecond)
	require.ErrorContains(t, err, "READONLY")
	_ = m.Close() // what was refused has left nothing
	require.Zero(t, s.Node(s.Master).Exists(ctx, "key").Val())
}

// A rotation is a user whose password is another one each few connections. Those that there
// are stay as they are.
type rotation struct {
	t     *testing.T
	admin *redis.Client
	user  string

	mu        sync.Mutex
	n         int // connections
	listeners map[auth.CredentialsListener]bool
}

func rotating(set func(o *redis.Options, r *rotation)) func(*testing.T, *ground, *topology) {
	return func(t *testing.T, g *ground, on *topology) {
		r := &rotation{t: t, admin: newClient(g, nil), user: "rotating", listeners: make(map[auth.CredentialsListener]bool)}
		t.Cleanup(func() { r.admin.Close() })
		on.connectsBy(func() redis.UniversalClient {
			return newClient(g, func(o *redis.Options) {
				o.ConnMaxLifetime = 200 * time.Millisecond // so that there are many
				set(o, r)
			})
		})
		on.looksBy(t, newClient(g, nil))
		t.Cleanup(func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			require.Greater(t, r.n, 10, "the password was never changed")
		})
	}
}

func (r *rotation) password() string { return fmt.Sprint("password-", r.n/5) }

func (r *rotation) next() (user, password string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n%5 == 0 {
		if err := r.admin.Do(ctx, "acl", "setuser", r.user, "reset", "on", ">"+r.password(), "allkeys", "allchannels", "+@all").Err(); err != nil {
			r.t.Error(err)
		}
	}
	password = r.password()
	r.n++
	return r.user, password
}

// Subscribe is of a redis StreamingCredentialsProvider, which tells connections of new passwords.
func (r *rotation) Subscribe(listener auth.CredentialsListener) (auth.Credentials, auth.UnsubscribeFunc, error) {
	user, password := r.next()
	credentials := auth.NewBasicCredentials(user, password)
	r.mu.Lock()
	others := make([]auth.CredentialsListener, 0, len(r.listeners))
	for other := range r.listeners {
		others = append(others, other)
	}
	r.listeners[listener] = true
	r.mu.Unlock()
	for _, other := range others {
		if other != listener {
			go other.OnNext(credentials)
		}
	}
	return credentials, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.listeners, listener)
		return nil
	}, nil
}

// startTLS starts a server that asks its clients for a certificate, and has one.
func startTLS(protocol int) func(*testing.T, *ground, *topology) {
	return func(t *testing.T, _ *ground, on *topology) {
		config, files := certificate(t)
		free, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		addr := free.Addr().String()
		require.NoError(t, free.Close())
		redistest.Start(t, "--tls-port", addr[strings.LastIndexByte(addr, ':')+1:], "--tls-auth-clients", "yes",
			"--tls-cert-file", files+".crt", "--tls-key-file", files+".key", "--tls-ca-cert-file", files+".crt")
		client := func(protocol int) redis.UniversalClient {
			return redis.NewClient(&redis.Options{Addr: addr, TLSConfig: config, Protocol: protocol})
		}
		on.connectsBy(func() redis.UniversalClient { return client(protocol) })
		on.looksBy(t, client(3))
	}
}

// certificate makes a certificate for servers and clients on this machine, which is
// signed by itself: for both, and in files for redis-server.
func certificate(t *testing.T) (config *tls.Config, files string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redislock"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	private, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	crt := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})
	pair, err := tls.X509KeyPair(crt, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}))
	require.NoError(t, err)

	files = filepath.Join(t.TempDir(), "redis")
	require.NoError(t, os.WriteFile(files+".crt", crt, 0o600))
	require.NoError(t, os.WriteFile(files+".key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(crt)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, files
}

func inThree(o *redis.ClusterOptions) {
	o.OnConnect = func(ctx context.Context, conn *redis.Conn) error { return conn.Select(ctx, 3).Err() }
}

// withDatabases starts a cluster with several databases, which Valkey has from version 9
// on: of other servers it returns nil.
func withDatabases(t *testing.T) *ground {
	cluster, err := redisserver.StartCluster(redisserver.Options{Dir: t.TempDir(), Args: []string{"--cluster-databases", "16"}}, 3, 0)
	if err != nil {
		require.ErrorContains(t, err, "cluster-databases", "and not that there is no such setting")
		t.Log("this server has clusters of one database only")
		return nil
	}
	t.Cleanup(cluster.Kill)
	return &ground{cluster: func() *redisserver.Cluster { return cluster }}
}

func startClusterDatabase(t *testing.T, _ *ground, on *topology) {
	if g := withDatabases(t); g != nil {
		on.connectsBy(func() redis.UniversalClient { return clusterClient(g, inThree) })
		on.looksBy(t, clusterClient(g, inThree))
	}
}

// Where a cluster has several databases, the same key in another one is another key, and
// its events are not this one's. Where it has not, a client that selects one is refused.
func TestDatabaseOfACluster(t *testing.T) {
	g := withDatabases(t)
	if g == nil {
		m, err := redislock.NewLockManager(redistest.StartCluster(t, 3, 0).Client(inThree))
		require.NoError(t, err)
		_, err = m.TryLock(ctx, "key", time.Minute)
		require.ErrorContains(t, err, "SELECT")
		_ = m.Close() // cannot tell the cluster anything
		return
	}
	client, other := clusterClient(g, inThree), clusterClient(g, nil)
	t.Cleanup(func() { client.Close(); other.Close() })
	m := newManager(t, client, redislock.WithKeyspaceEvents(redislock.KeyspaceRequired))
	require.NoError(t, client.Set(ctx, "key", "another program's", time.Hour).Err())
	require.NoError(t, other.Set(ctx, "key", "of database 0", time.Hour).Err())
	l := m.Lock(ctx, "key", time.Minute)
	owner, err := other.MasterForKey(ctx, "key")
	require.NoError(t, err)
	eventually(t, "the key's events are heard", func() bool {
		return owner.Publish(ctx, "__keyspace@3__:key", "nothing").Val() == 1 && m.HasHeard("key")
	})
	require.Empty(t, owner.PubSubChannels(ctx, "__keyspace@0__:*").Val())
	require.NoError(t, client.Del(ctx, "key").Err())
	serve(t, l)
	require.Equal(t, "of database 0", other.Get(ctx, "key").Val())
}

// startMixedQuorum has each node reached by a client of another kind.
func startMixedQuorum(t *testing.T, _ *ground, on *topology) {
	on.majority, on.globalOrder, on.build = 2, false, redislock.NewQuorumManager
	var servers []*redistest.Server
	for range 3 {
		servers = append(servers, redistest.Start(t))
	}
	on.connect = func() []redis.UniversalClient {
		return []redis.UniversalClient{
			redis.NewClient(&redis.Options{Addr: servers[0].Addr, Protocol: 2, DB: 3, PoolSize: 1}),
			metered{redis.NewClient(&redis.Options{Addr: servers[1].Addr})},
			redis.NewUniversalClient(&redis.UniversalOptions{Addrs: []string{servers[2].Addr}, ReadTimeout: -1, MaxRetries: 10}),
		}
	}
	for i, server := range servers {
		on.looksBy(t, server.Client(func(o *redis.Options) {
			if i == 0 {
				o.DB = 3
			}
		}))
	}
}
