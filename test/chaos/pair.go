package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock/internal/redisserver"
	"github.com/redislock/redislock/test/aof"
)

// A pair are a master and its replica, which change places again and again. Both
// write append-only files. A replica that has to begin anew, as after its death,
// loses the history that it had; so a copy is made of that of its master, and what
// the replica has from then on goes on where that one has the same mark.
type pair struct {
	dir     string
	servers [2]*redisserver.Server
	admins  [2]*redis.Client
	args    [2][]string // of the servers, without whom to follow
	markKey string
	follows bool // a server that comes back is told whom to follow by an argument

	mu   sync.Mutex
	at   int          // which is the master
	old  *node        // one that was replaced, and may not know; or nil
	won  [2]time.Time // when each became that
	mark int64        // the last mark

	base   [2]string   // the file with the data that the server began with
	before [2][]string // folders with the history before that
	dead   []death     // of each master that was replaced before its replica had all

	id     string // of the master's history: another one, once it has been a replica
	astray bool   // a master was replaced, and nobody had wanted that

	copies int
	stop   chan struct{}
	done   chan struct{}
}

// A death is the end of a master as such.
type death struct {
	folders []string // with its whole history
	over    int64    // when it was known to be over: Unix time, ms
}

// newPair begins to mark the history of a master and a replica that are in step, and
// empty. The tag is one of a key that the master has.
func newPair(dir string, master, replica *redisserver.Server, tag string) (*pair, error) {
	p := &pair{
		dir: dir, servers: [2]*redisserver.Server{master, replica}, markKey: aof.MarkKey,
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	if tag != "" {
		p.markKey += ":{" + tag + "}"
	}
	for i, server := range p.servers {
		p.admins[i], p.args[i] = newAdmin(server.Addr), slices.Clone(server.Args)
	}
	if err := p.follow(1); err != nil {
		return nil, err
	}
	p.turn(0)
	// All that there is of either is in its file.
	p.before = [2][]string{}
	go p.marks()
	return p, nil
}

func (p *pair) master() node {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nodes()[p.at]
}

func (p *pair) nodes() []node {
	return []node{{p.servers[0], p.admins[0]}, {p.servers[1], p.admins[1]}}
}

func (p *pair) marks() {
	defer close(p.done)
	for {
		select {
		case <-p.stop:
			return
		case <-time.After(10 * time.Millisecond):
			_, _ = p.setMark() // there may be no master just now
		}
	}
}

func (p *pair) setMark() (int64, error) {
	p.mu.Lock()
	p.mark += 2
	mark, master, old := p.mark, p.admins[p.at], p.old
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if old != nil { // tells the time there, too
		old.admin.Set(ctx, p.markKey, mark-1, aof.MarkTTL)
	}
	return mark, master.Set(ctx, p.markKey, mark, aof.MarkTTL).Err()
}

// errAstray: who was the master when is not known, nor what was lost.
var errAstray = errors.New("a master was replaced, though nobody had wanted that")

// end ends the servers, and returns their history.
func (p *pair) end(keys ...string) (record, error) {
	close(p.stop)
	<-p.done
	p.check()
	for _, server := range p.servers {
		server.Kill()
	}
	r := record{keys: keys}
	if p.astray {
		return r, errAstray
	}
	kept, err := aof.ReadFollowed(append(p.before[p.at], appendOnly(p.servers[p.at].Dir))...)
	if err != nil {
		return r, err
	}
	var dead []aof.Lost
	for _, one := range p.dead {
		entries, err := aof.ReadFollowed(one.folders...)
		if err != nil {
			return r, err
		}
		dead = append(dead, aof.Lost{Entries: entries, Over: one.over})
	}
	r.entries, r.lost = aof.Merge(kept, dead...)
	return r, nil
}

func (p *pair) close() {
	for i, server := range p.servers {
		p.admins[i].Close()
		server.Kill()
	}
}

// handOver has the replica take the master's place, with nothing lost: begin starts
// that, and may have to again; demote, if it is there, makes the master a replica. It
// returns when it is one, which need not be in step yet.
func (p *pair) handOver(begin, demote func(ctx context.Context, heir int) error) error {
	p.check()
	heir := 1 - p.at
	var begun time.Time
	if err := until("the replica is the master", func(ctx context.Context) error {
		if time.Since(begun) > retryAfter {
			begun = time.Now()
			if err := begin(ctx, heir); err != nil {
				begun = time.Time{}
				return err
			}
		}
		return p.is(ctx, heir, "master")
	}); err != nil {
		return err
	}
	p.turn(heir)
	return until("the master is a replica", func(ctx context.Context) error {
		if demote != nil {
			if err := demote(ctx, heir); err != nil {
				return err
			}
		}
		return p.is(ctx, 1-heir, "slave")
	})
}

// retryAfter is how long a planned failover is given. A cluster gives up on one that
// takes 5 s, or for which there was no majority.
const retryAfter = 6 * time.Second

// kill kills the master, and has the replica take its place: promote sees to that. It
// returns when the one that was killed has come back, and follows the other.
func (p *pair) kill(promote func(heir int) error) error {
	p.check()
	victim, heir := p.at, 1-p.at
	p.servers[victim].Kill()
	copied, err := p.copy(victim)
	if err != nil {
		return err
	}
	p.dead = append(p.dead, death{append(slices.Clone(p.before[victim]), copied), time.Now().UnixMilli()})
	if err := promote(heir); err != nil {
		return err
	}
	if err := until("the replica is the master", func(ctx context.Context) error { return p.is(ctx, heir, "master") }); err != nil {
		return err
	}
	p.turn(heir)
	p.servers[victim].Args = slices.Clone(p.args[victim])
	if p.follows {
		host, port := hostAndPort(p.servers[heir])
		p.servers[victim].Args = append(p.servers[victim].Args, "--replicaof", host, port)
	}
	if err := p.servers[victim].Run(); err != nil {
		return err
	}
	return p.follow(victim)
}

// outlive has the replica take the master's place, which lives on, and does not know of it
// until it is made a replica: promote and demote see to that, if need be. If the master
// stands still, it does so until it is replaced. It returns when the old master follows
// the other.
func (p *pair) outlive(stands bool, promote, demote func(heir int) error) error {
	p.check()
	victim, heir := p.at, 1-p.at
	base, err := aof.Base(appendOnly(p.servers[victim].Dir))
	if err != nil {
		return err
	}
	// When the old master begins anew it removes the history that it had. What it writes
	// until then goes into the same file.
	linked, err := p.link(victim)
	if err != nil {
		return err
	}
	before := append(slices.Clone(p.before[victim]), linked)
	if stands {
		if err := p.servers[victim].Freeze(); err != nil {
			return err
		}
		defer func() { _ = p.servers[victim].Thaw() }()
	}
	if err := promote(heir); err != nil {
		return err
	}
	if err := until("the replica is the master", func(ctx context.Context) error { return p.is(ctx, heir, "master") }); err != nil {
		return err
	}
	p.turn(heir)
	if err := p.servers[victim].Thaw(); err != nil {
		return err
	}
	p.outlived(&p.nodes()[victim])
	if err := demote(heir); err != nil {
		return err
	}
	if err := until("the master is a replica", func(ctx context.Context) error { return p.is(ctx, victim, "slave") }); err != nil {
		return err
	}
	over := time.Now().UnixMilli()
	p.outlived(nil)
	if err := p.follow(victim); err != nil {
		return err
	}
	now, err := aof.Base(appendOnly(p.servers[victim].Dir))
	if err == nil && now != base { // else it had written nothing that the other had not
		p.dead = append(p.dead, death{before, over})
	}
	return err
}

// outlived has marks set on a master that was replaced as well, or no longer.
func (p *pair) outlived(old *node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.old = old
}

// link makes a folder with the history of a server as it is and will be, until the server
// begins anew.
func (p *pair) link(i int) (string, error) {
	p.copies++
	from, to := appendOnly(p.servers[i].Dir), filepath.Join(p.dir, "copy-"+strconv.Itoa(p.copies))
	files, err := os.ReadDir(from)
	if err == nil {
		err = os.MkdirAll(to, 0o755)
	}
	for _, file := range files {
		if err == nil {
			err = os.Link(filepath.Join(from, file.Name()), filepath.Join(to, file.Name()))
		}
	}
	return to, err
}

// is returns an error unless a server has the role.
func (p *pair) is(ctx context.Context, i int, role string) error {
	info, err := p.info(ctx, i)
	if err == nil && info["role"] != role {
		err = fmt.Errorf("it is a %s", info["role"])
	}
	return err
}

// check notes whether the master has been one ever since it became that. On a machine
// that stands still for a second, sentinels and clusters replace masters by themselves.
func (p *pair) check() {
	if p.historyID(p.at) != p.id {
		p.astray = true
	}
}

// historyID returns what a master calls its history; of another server nothing.
func (p *pair) historyID(i int) (id string) {
	_ = until("the master tells its history", func(ctx context.Context) error {
		info, err := p.info(ctx, i)
		if info["role"] == "master" {
			id = info["master_replid"]
		}
		return err
	})
	return id
}

// turn takes in that another server is the master.
func (p *pair) turn(heir int) {
	p.id = p.historyID(heir)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.won[heir] = heir, time.Now()
}

// follow waits until a server follows the master, and what that does goes into its
// file.
func (p *pair) follow(replica int) error {
	return until("the replica follows its master", func(ctx context.Context) error {
		info, err := p.info(ctx, replica)
		if err != nil {
			return err
		}
		for name, want := range map[string]string{
			"role": "slave", "master_link_status": "up", "aof_enabled": "1", "aof_rewrite_in_progress": "0", "aof_rewrite_scheduled": "0",
		} {
			if info[name] != want {
				return fmt.Errorf("%s is %s", name, info[name])
			}
		}
		base, err := aof.Base(appendOnly(p.servers[replica].Dir))
		if err != nil {
			return err
		}
		mark, err := p.setMark()
		if err != nil {
			return err
		}
		for {
			got, err := p.admins[replica].Get(ctx, p.markKey).Int64()
			switch {
			case err != nil && !errors.Is(err, redis.Nil):
				return err
			case got >= mark:
			default:
				time.Sleep(time.Millisecond)
				continue
			}
			break
		}
		if base == p.base[replica] {
			return nil
		}
		master := 1 - replica
		copied, err := p.copy(master)
		if err != nil {
			return err
		}
		p.base[replica], p.before[replica] = base, append(slices.Clone(p.before[master]), copied)
		return nil
	})
}

// info returns what a server says of itself.
func (p *pair) info(ctx context.Context, i int) (map[string]string, error) {
	sections, err := p.admins[i].InfoMap(ctx, "replication", "persistence").Result()
	if err != nil {
		return nil, err
	}
	all := make(map[string]string)
	for _, section := range sections {
		for name, value := range section {
			all[name] = value
		}
	}
	return all, nil
}

// until looks, again and again, until there is no error any more.
func until(what string, look func(ctx context.Context) error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		err := look(ctx)
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %s: %w", patience, what, err)
		}
	}
}

// copy copies the history of a server as it is now, and returns the folder.
func (p *pair) copy(i int) (string, error) {
	p.copies++
	to := filepath.Join(p.dir, "copy-"+strconv.Itoa(p.copies))
	return to, os.CopyFS(to, os.DirFS(appendOnly(p.servers[i].Dir)))
}

// A pairSite is a site that is one pair.
type pairSite struct{ *pair }

func (s pairSite) keys() []string     { return keys }
func (s pairSite) master(string) node { return s.pair.master() }
func (s pairSite) masters() []node    { return []node{s.pair.master()} }

func (s pairSite) end(func(string) (int64, bool)) ([]record, error) {
	r, err := s.pair.end()
	return []record{r}, err
}
