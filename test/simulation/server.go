package simulation

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A server is one Redis: it runs commands one at a time, in the order in which
// they arrive, and keeps subscriptions.
type server struct {
	net     *network
	store   *store
	scripts map[string]bool // by SHA-1, until SCRIPT FLUSH
	events  string          // notify-keyspace-events
	truth   *truth

	ahead time.Duration // its clock against ours, at the start
	ppm   int64         // and how much faster it runs

	lag *rand.Rand // of the events of expired keys

	// There are two servers, of which one is the master, and which have the same data.
	// The other refuses what writes. If it is linked, it passes on to its own
	// subscribers what the master publishes, whose count knows nothing of them.
	master int
	linked bool

	frozen   bool // takes in requests and runs none
	backlog  []func()
	refusing failure // the answer to all commands on data, if set
	noConfig bool    // CONFIG is forbidden
}

// clock is the server's clock, since the Unix epoch.
func (s *server) clock() time.Duration { return s.clockAt(s.net.now()) }

func (s *server) clockAt(t time.Duration) time.Duration {
	return s.ahead + t + t*time.Duration(s.ppm)/1_000_000
}

// when returns, on our clock, the moment from which a key is gone that expires
// at the given millisecond of the server's.
func (s *server) when(expires int64) time.Duration {
	target := time.Duration(expires+1) * time.Millisecond
	t := time.Duration(float64(target-s.ahead) / (1 + float64(s.ppm)/1e6))
	for s.clockAt(t) > target {
		t -= time.Microsecond
	}
	for s.clockAt(t) < target {
		t++
	}
	return t
}

// A call is a command that is being run, and what it is part of.
type call struct {
	conn      *conn // nil: not by a manager
	name      string
	script    string // "acquire", "release", "free", "extend", "raise" or "probe"
	keys      []string
	args      []string
	popped    []*attempt // taken from the queue by this script so far
	toTell    *attempt   // has been made the owner, and is to hear of it
	drawn     bool       // a token, or tokens
	fenceEnds bool       // the fence, as last set, has a time to live
	byFault   bool
}

// releases tells whether the call is a release of the key by the owner of that value.
func (c *call) releases(key, value string) bool {
	switch c.script {
	case "release":
		return c.args[0] == value
	case "free":
		for i, v := range c.args {
			if v == value && c.keys[i] == key {
				return true
			}
		}
	}
	return false
}

// arrive runs a request that has made its way.
func (s *server) arrive(c *conn, args []string, after mishap) {
	if c.gone {
		return
	}
	if s.frozen {
		s.backlog = append(s.backlog, func() { s.arrive(c, args, after) })
		return
	}
	reply := s.execute(c, args)
	s.net.story.add("%v: %v -> %v", c, command(args), answer{reply})
	switch after {
	case replyCut:
		s.net.story.add("%v is cut before the answer", c)
		c.cut()
		return
	case replyLost:
		s.net.story.add("%v goes silent before the answer", c)
		c.downDead = true
	}
	if !strings.HasSuffix(strings.ToUpper(args[0]), "SUBSCRIBE") { // which is answered by messages
		c.reply(encode(nil, reply, c.resp3), true, s.truth.placed(args, reply))
	}
}

func (s *server) thaw() {
	s.frozen = false
	backlog := s.backlog
	s.backlog = nil
	for _, f := range backlog {
		f()
	}
}

func (s *server) execute(c *conn, args []string) any {
	name := strings.ToUpper(args[0])
	switch name {
	case "HELLO":
		c.resp3 = args[1] == "3"
		return mapping{"server", "redis", "version", "7.4.0", "proto", integer(args[1]), "mode", "standalone", "role", "master"}
	case "PING":
		if len(c.subs) > 0 && !c.resp3 {
			return []any{"pong", ""}
		}
		return status("PONG")
	case "CLIENT":
		return status("OK")
	case "CONFIG":
		return s.config(args[1:])
	case "SUBSCRIBE", "UNSUBSCRIBE":
		slices.Sort(args[1:]) // they come from a map
		for _, channel := range args[1:] {
			if name == "SUBSCRIBE" {
				s.truth.subscribes(c.process, channel, c.side == s.master)
				c.subs[channel] = true
			} else {
				delete(c.subs, channel)
			}
			c.push(encode(nil, message{strings.ToLower(name), channel, int64(len(c.subs))}, c.resp3))
		}
		return nil
	}
	if s.refusing != "" {
		return s.refusing
	}
	if c.side != s.master {
		return failure("READONLY You can't write against a read only replica.")
	}
	current := &call{conn: c, name: name}
	s.truth.begin(current)
	defer s.truth.end(current)
	switch name {
	case "EVAL", "EVALSHA":
		return s.eval(current, name, args[1:])
	}
	return s.command(args)
}

// command runs a command on data, of a client or of a script.
func (s *server) command(args []string) any {
	switch strings.ToUpper(args[0]) {
	case "PUBLISH":
		receivers := s.publish(args[1], args[2])
		if !strings.HasPrefix(args[2], "look ") {
			s.truth.current.toTell = nil
		}
		return receivers
	case "PUBSUB":
		if strings.ToUpper(args[1]) != "NUMSUB" || len(args) != 3 {
			panic(errArguments)
		}
		return []any{args[2], s.listeners(args[2])}
	}
	return s.store.do(args)
}

func (s *server) eval(current *call, name string, args []string) any {
	sha := strings.ToLower(args[0])
	if name == "EVAL" {
		var err error
		if sha, err = compile(args[0]); err != nil {
			return failure("ERR " + err.Error())
		}
		s.scripts[sha] = true
	} else if !s.scripts[sha] {
		return failure("NOSCRIPT No matching script. Please use EVAL.")
	}
	count := integer(args[1])
	current.keys, current.args = args[2:2+count], args[2+count:]
	current.script = scriptName(current.keys, current.args)
	s.truth.running(current)
	return run(sha, current.keys, current.args, s.command)
}

// scriptName tells the library's scripts by what they are given.
func scriptName(keys, args []string) string {
	switch {
	case len(keys) == 1 && len(args) == 0:
		return "raise"
	case len(keys) == 1 && len(args) == 2 && keys[0] == probeKey:
		return "probe"
	case len(keys) == 1 && len(args) == 2:
		return "extend"
	case len(args) > 0 && len(keys) == 2*len(args):
		return "free"
	case len(keys) == 5 && (len(args) == 4 || len(args) == 5):
		return "release"
	case len(keys) == 5 && (len(args) == 7 || len(args) == 8):
		return "acquire"
	}
	panic(fmt.Sprintf("what script is given %q %q?", keys, args))
}

func (s *server) publish(channel, text string) int64 {
	receivers := int64(0)
	for _, c := range s.net.conns {
		if c.gone || !c.subs[channel] {
			continue
		}
		if c.side == s.master {
			receivers++
		} else if !s.linked {
			continue
		}
		c.push(encode(nil, message{"message", channel, text}, c.resp3))
	}
	return receivers
}

// notify sends a keyspace event.
func (s *server) notify(event, key string) {
	class := map[string]string{"set": "$", "incrby": "$", "expired": "x"}[event]
	if class == "" {
		class = "g"
	}
	if strings.Contains(s.events, "K") && strings.ContainsAny(s.events, class+"A") {
		s.publish("__keyspace@0__:"+key, event)
	}
}

func (s *server) config(args []string) any {
	switch {
	case s.noConfig:
		return failure("NOPERM this user has no permissions to run the 'config' command")
	case strings.ToUpper(args[0]) == "GET":
		return mapping{args[1], s.events}
	default:
		s.events = args[2]
		return status("OK")
	}
}

// listeners returns how many connections the server thinks to be listening.
func (s *server) listeners(channel string) (n int64) {
	for _, c := range s.net.conns {
		if !c.gone && c.subs[channel] && c.side == s.master {
			n++
		}
	}
	return n
}

// failOver makes the other server the master, without the loss of a write. Its clock
// shows another time by so much. The connections to the old one stay open.
func (s *server) failOver(ahead time.Duration, linked bool) {
	s.store.expire()
	s.master, s.linked = 1-s.master, linked
	s.ahead += ahead
	clear(s.scripts)
	s.truth.failedOver(ahead)
}

type (
	mapping []any // keys and values in turn
	message []any // pushed, not asked for
)

// encode writes a reply in RESP2 or RESP3.
func encode(p []byte, reply any, resp3 bool) []byte {
	head := func(kind byte, n int) {
		p = append(p, kind)
		p = strconv.AppendInt(p, int64(n), 10)
		p = append(p, "\r\n"...)
	}
	array := func(kind byte, n int, values []any) {
		head(kind, n)
		for _, v := range values {
			p = encode(p, v, resp3)
		}
	}
	switch reply := reply.(type) {
	case nil:
		if resp3 {
			return append(p, "_\r\n"...)
		}
		return append(p, "$-1\r\n"...)
	case status:
		return append(append(append(p, '+'), reply...), "\r\n"...)
	case failure:
		return append(append(append(p, '-'), reply...), "\r\n"...)
	case int64:
		head(':', int(reply))
	case string:
		head('$', len(reply))
		p = append(append(p, reply...), "\r\n"...)
	case float64:
		if !resp3 {
			return encode(p, number(reply), resp3)
		}
		p = append(append(append(p, ','), number(reply)...), "\r\n"...)
	case []any:
		array('*', len(reply), reply)
	case mapping:
		if resp3 {
			array('%', len(reply)/2, reply)
		} else {
			array('*', len(reply), reply)
		}
	case message:
		if resp3 {
			array('>', len(reply), reply)
		} else {
			array('*', len(reply), reply)
		}
	default:
		panic(fmt.Sprintf("reply of type %T", reply))
	}
	return p
}

// answer prints a reply.
type answer struct{ reply any }

func (a answer) String() string {
	text := string(bytes.TrimSpace(encode(nil, a.reply, false)))
	switch reply := a.reply.(type) {
	case nil:
		text = "nil"
	case mapping:
		text = "its properties"
	case []any:
		parts := make([]string, len(reply))
		for i, v := range reply {
			parts[i] = answer{v}.String()
		}
		text = "[" + strings.Join(parts, " ") + "]"
	case string:
		text = reply
		if text == "" {
			text = "''"
		}
	case int64:
		text = strconv.FormatInt(reply, 10)
	case float64:
		text = number(reply)
	}
	return text
}

// expireLater has a key go some time after its lease, as Redis does in its own
// time when nobody asks for it.
func (s *server) expireLater(expires int64) {
	lag := time.Duration(s.lag.Int64N(int64(2 * time.Second)))
	s.net.at(s.when(expires)+lag, s.store.expire)
}
