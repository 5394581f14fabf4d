package redisserver

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MasterName is what the sentinels call the master.
const MasterName = "locks"

// Sentinels are a master, its replicas, and sentinels that put one of these in its
// place when it has gone, within some seconds.
type Sentinels struct {
	Name                string  // of the master, for clients
	Master              *Server // the first one
	Replicas, Sentinels []*Server

	slow bool // the sentinels have only their own pace
}

// StartSentinels runs a master, that many replicas, and that many sentinels, more than
// half of which have to agree. It returns when the replicas are in sync and each
// sentinel is connected to all others of either kind. Each server has a folder of its
// own below Dir. Args and Env are for the master and the replicas; Args must not ask
// for a password.
func StartSentinels(o Options, replicas, sentinels int) (*Sentinels, error) {
	s := &Sentinels{Name: MasterName}
	err := s.start(o, replicas, sentinels)
	if err == nil {
		err = until(s.complete)
	}
	if err == nil {
		err = s.watch()
	}
	if err != nil {
		s.Kill()
		return nil, fmt.Errorf("a master with %d replicas and %d sentinels: %w", replicas, sentinels, err)
	}
	return s, nil
}

func (s *Sentinels) start(o Options, replicas, sentinels int) error {
	args := append([]string{"--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"}, o.Args...)
	var err error
	if s.Master, err = prepare(o, "master", args...); err != nil {
		return err
	}
	if err := s.Master.runWith(""); err != nil {
		return err
	}
	for i := range replicas {
		replica, err := prepare(o, fmt.Sprintf("replica-%d", i), args...)
		if err != nil {
			return err
		}
		s.Replicas = append(s.Replicas, replica)
		if err := replica.runWith("replicaof " + hostAndPort(s.Master)); err != nil {
			return err
		}
	}
	for i := range sentinels {
		sentinel, err := prepare(Options{Dir: o.Dir}, fmt.Sprintf("sentinel-%d", i), "--sentinel")
		if err != nil {
			return err
		}
		s.Sentinels = append(s.Sentinels, sentinel)
	}
	for i, config := range s.configs() {
		sentinel := s.Sentinels[i]
		sentinel.begin = func() error { return s.hurry(sentinel) }
		if err := sentinel.runWith(config...); err != nil {
			return err
		}
	}
	return nil
}

// hurry sets the pace of a sentinel. It looks at all servers, and tells the other
// sentinels, twice a second, not every 10 and every 2 s: a master that comes back is
// made a replica after 2 s, not 10.
//
// When a server is told whom to follow, its connections are cut. A sentinel connects
// again once in PING-PERIOD at most, and if down-after-milliseconds is not well above
// that, a new master seems dead at once. A second fail-over amid the first can leave
// the sentinels in disagreement for good. On the other hand, replicas that have told
// nothing of themselves for five times PING-PERIOD are not promoted, and they do so
// once a second. Redis before 7 has only its own pace: see watch.
func (s *Sentinels) hurry(sentinel *Server) error {
	_, err := sentinel.do("SENTINEL", "DEBUG", "INFO-PERIOD", 500, "PUBLISH-PERIOD", 500, "PING-PERIOD", 300)
	if err != nil {
		_, err = sentinel.do("PING")
		s.slow = true
	}
	return err
}

// watch has the sentinels take a master for dead that is silent for a second, or for
// more where they look more rarely. They wait for a minute before all is connected: a busy
// machine may stand still for a second, and a fail-over amid the start leaves the servers
// in disagreement.
func (s *Sentinels) watch() error {
	downAfter := 1000
	if s.slow {
		downAfter = 3000
	}
	for _, sentinel := range s.Sentinels {
		if _, err := sentinel.do("SENTINEL", "SET", s.Name, "down-after-milliseconds", downAfter); err != nil {
			return err
		}
	}
	return nil
}

// configs returns what each sentinel is told. It is all that they would find out by
// themselves, in some seconds, and would write into that file.
func (s *Sentinels) configs() [][]string {
	ids := make([]string, len(s.Sentinels))
	for i := range ids {
		ids[i] = randomID()
	}
	configs := make([][]string, len(s.Sentinels))
	for i := range configs {
		configs[i] = []string{
			"sentinel myid " + ids[i],
			fmt.Sprintf("sentinel monitor %s %s %d", s.Name, hostAndPort(s.Master), len(s.Sentinels)/2+1),
			fmt.Sprintf("sentinel down-after-milliseconds %s 60000", s.Name), // until watch
			// Who was not elected, because all stood at once, stands again after twice that.
			fmt.Sprintf("sentinel failover-timeout %s 2000", s.Name),
			fmt.Sprintf("sentinel parallel-syncs %s %d", s.Name, max(1, len(s.Replicas))),
		}
		for _, replica := range s.Replicas {
			configs[i] = append(configs[i], fmt.Sprintf("sentinel known-replica %s %s", s.Name, hostAndPort(replica)))
		}
		for j, other := range s.Sentinels {
			if j != i {
				configs[i] = append(configs[i], fmt.Sprintf("sentinel known-sentinel %s %s %s", s.Name, hostAndPort(other), ids[j]))
			}
		}
	}
	return configs
}

func randomID() string {
	var id [20]byte
	_, _ = rand.Read(id[:]) // never fails
	return fmt.Sprintf("%x", id)
}

func hostAndPort(s *Server) string { return strings.Replace(s.Addr, ":", " ", 1) }

// runWith runs the server with a file that has these lines at first, and in which it
// notes what it has to know when it is run again.
func (s *Server) runWith(lines ...string) error {
	s.config = filepath.Join(s.Dir, "redis.conf")
	if err := os.WriteFile(s.config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return s.Run()
}

// complete returns an error unless all is as it shall be at first.
func (s *Sentinels) complete() error {
	if err := replicated(s.Master, s.Replicas); err != nil {
		return err
	}
	for _, sentinel := range s.Sentinels {
		if err := s.knowsAll(sentinel); err != nil {
			return fmt.Errorf("sentinel %s: %w", sentinel.Addr, err)
		}
	}
	return nil
}

// knowsAll returns an error unless the sentinel is connected to the master, all
// replicas and all other sentinels.
func (s *Sentinels) knowsAll(sentinel *Server) error {
	master, err := list(sentinel.do("SENTINEL", "MASTER", s.Name))
	if err != nil {
		return err
	}
	replicas, err := list(sentinel.do("SENTINEL", "REPLICAS", s.Name))
	if err != nil {
		return err
	}
	others, err := list(sentinel.do("SENTINEL", "SENTINELS", s.Name))
	if err != nil {
		return err
	}
	if flags := pairs(master)["flags"]; flags != "master" {
		return fmt.Errorf("the master is %s", flags)
	}
	if len(replicas) != len(s.Replicas) || len(others) != len(s.Sentinels)-1 {
		return fmt.Errorf("knows %d replicas and %d other sentinels", len(replicas), len(others))
	}
	for _, replica := range replicas {
		is := pairs(replica)
		if is["flags"] != "slave" || is["master-link-status"] != "ok" {
			return fmt.Errorf("replica %s is %s, its link to the master %s", is["name"], is["flags"], is["master-link-status"])
		}
	}
	for _, other := range others {
		if is := pairs(other); is["flags"] != "sentinel" {
			return fmt.Errorf("sentinel %s is %s", is["name"], is["flags"])
		}
	}
	return nil
}

// Addrs returns the addresses of the sentinels.
func (s *Sentinels) Addrs() []string { return addrs(s.Sentinels) }

// Current returns the server that the sentinels hold for the master now. Of those
// that answer, it believes the ones that know of the latest change.
func (s *Sentinels) Current() (*Server, error) {
	answers, err := askAll(s.Sentinels, s.ask)
	if err != nil {
		return nil, err
	}
	master := latest(answers)
	all := append([]*Server{s.Master}, s.Replicas...)
	i := slices.IndexFunc(all, func(server *Server) bool { return server.Addr == master.addr })
	if i < 0 {
		return nil, fmt.Errorf("the master is said to be %s", master.addr)
	}
	return all[i], nil
}

// An answer says where the master is, and since which epoch.
type answer struct {
	addr  string
	epoch int
}

// latest returns the answer with the highest epoch; should sentinels disagree in one,
// what most of them say.
func latest(answers map[*Server]answer) answer {
	latest, votes := answer{epoch: -1}, make(map[answer]int)
	for _, said := range answers {
		votes[said]++
		if said.epoch > latest.epoch || said.epoch == latest.epoch && votes[said] > votes[latest] {
			latest = said
		}
	}
	return latest
}

func (s *Sentinels) ask(sentinel *Server, timeout time.Duration) (answer, error) {
	// SENTINEL MASTER has the epoch, but during a fail-over still the old address. It
	// comes first, so that an old address cannot go with a new epoch.
	master, err := list(sentinel.doWithin(timeout, "SENTINEL", "MASTER", s.Name))
	if err != nil {
		return answer{}, err
	}
	at, err := list(sentinel.doWithin(timeout, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", s.Name))
	if err != nil {
		return answer{}, err
	}
	if len(at) != 2 {
		return answer{}, fmt.Errorf("%s knows no master %s", sentinel.Addr, s.Name)
	}
	epoch, err := strconv.Atoi(pairs(master)["config-epoch"])
	return answer{fmt.Sprintf("%s:%s", at...), epoch}, err
}

// Kill ends all servers for good.
func (s *Sentinels) Kill() {
	killAll(s.Sentinels)
	killAll(s.Replicas)
	if s.Master != nil {
		killAll([]*Server{s.Master})
	}
}
