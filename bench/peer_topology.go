package main

import (
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redislock/redislock"
)

// Who takes part where there is more than one server. Names are as on a single one.

func onQuorum() []contender {
	return []contender{redislockQuorum, redsyncAll, redsyncFast, redsyncDefault, rawQuorum}
}

func onCluster() []contender {
	all := []contender{redislockPeer, rueidislockPeer, rawPeer}
	for i := range all {
		all[i].on = cluster // each client finds out for itself
		all[i].lingers = all[i].name == rueidislockPeer.name
	}
	return all
}

var redislockQuorum = contender{
	name: redislockPeer.name, role: ours, on: quorum,
	open:    openRedislockQuorum,
	best:    redislockPeer.best,
	why:     redislockPeer.why,
	inRedis: same,
}

// goRedisEach returns a client of each of the servers.
func goRedisEach(addrs []string, s settings) (each []redis.UniversalClient) {
	for _, addr := range addrs {
		o := &redis.Options{Addr: addr, PoolSize: s.pool}
		if s.timeout > 0 {
			o.DialTimeout, o.ReadTimeout, o.WriteTimeout = s.timeout, s.timeout, s.timeout
			o.MaxRetries, o.DialerRetries = -1, 1
		}
		each = append(each, redis.NewClient(o))
	}
	return each
}

type quorumProcess struct {
	redislockProcess
	clients []redis.UniversalClient
}

func openRedislockQuorum(addrs []string, ttl time.Duration, s settings) (peer, error) {
	p := &quorumProcess{clients: goRedisEach(addrs, s)}
	var err error
	p.ttl = ttl
	p.manager, err = redislock.NewQuorumManager(p.clients)
	return p, err
}

func (p *quorumProcess) Close() error {
	return errors.Join(p.manager.Close(), closeEach(p.clients))
}

func closeEach(clients []redis.UniversalClient) (errs error) {
	for _, client := range clients {
		errs = errors.Join(errs, client.Close())
	}
	return errs
}
