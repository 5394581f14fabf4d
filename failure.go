package redislock

import (
	"errors"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

// A failure is what an error says of the request that it befell. classify is the one
// place that decides that; everybody else asks the failure.
type failure uint8

const (
	success     failure = iota // no error
	empty                      // Redis has answered: nil
	final                      // Redis has answered, and would answer the same again
	noScript                   // not carried out: Redis does not know the script
	elsewhere                  // nor here: a cluster has the key on another server
	changing                   // nor: the server, or the cluster, is about to serve again
	replica                    // nor: the server is a replica, which may be about to become a master, or never
	unready                    // nor: Redis may take it later
	unsent                     // there was no connection to send it over, or none that Redis would serve
	unanswered                 // it may have been carried out, or not
	clientEnded                // the client was closed, for ever
)

// settled tells that there is nothing to be tried again.
func (f failure) settled() bool { return f <= final || f == clientEnded }

// refused tells that Redis has answered, and has done nothing: not yet, or not here.
func (f failure) refused() bool { return noScript <= f && f <= unready }

// mayHaveRun tells of a request that failed whether Redis may have carried it out, in
// part at least: a script stops where it fails.
func (f failure) mayHaveRun() bool { return f == empty || f == final || f == unanswered }

// awaited says, for the log, what has to happen before the request can be served.
func (f failure) awaited() string {
	switch f {
	case elsewhere, changing:
		return "that the server, or the cluster, serves again"
	case replica:
		return "that the server becomes a master, or the address leads to one"
	case unready:
		return "that Redis accepts it"
	case unsent:
		return "a connection that Redis serves"
	}
	return "an answer"
}

// classify tells what an error of a command says of it.
func classify(err error) failure {
	if err == nil {
		return success
	}
	if errors.Is(err, redis.ErrClosed) {
		return clientEnded
	}
	var answer redis.Error
	if !errors.As(err, &answer) {
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" ||
			errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrPoolExhausted) {
			return unsent
		}
		return unanswered
	}
	f := classifyAnswer(answer)
	if errors.As(err, new(*setUpError)) && (!f.refused() || f == noScript || f == elsewhere) {
		return unsent // whatever the server said, it was not about the request
	}
	return f
}

func classifyAnswer(answer redis.Error) failure {
	if errors.Is(answer, redis.Nil) {
		return empty
	}
	code, text := errorCode(answer.Error())
	switch code {
	case "NOSCRIPT":
		return noScript
	case "MOVED", "ASK":
		return elsewhere
	case "LOADING", "CLUSTERDOWN", "TRYAGAIN":
		return changing
	case "READONLY", "MASTERDOWN":
		return replica
	case "BUSY", "OOM", "MISCONF", "NOREPLICAS", "UNBLOCKED": // the last of WAIT, as by CLIENT UNBLOCK
		return unready
	case "NOAUTH", "WRONGPASS", "DENIED": // DENIED: protected mode
		return unsent
	case "NOPERM":
		switch forbidden(text) {
		case "hello", "auth", "select", "client", "readonly": // sent by the client over a new connection
			return unsent
		}
	}
	if strings.HasPrefix(text, "max number of clients") {
		return unsent
	}
	return final
}

// errorCode returns the first word of what Redis said, by which its errors are told
// apart, and all of it, without what is put in front where a script ran into the
// error. As a script raised it, or had it from pcall and returned it:
//
//	READONLY You can't …                     Redis 7 and newer, Valkey
//	ERR Error running script (call to f_6d…): @user_script:5: @user_script: 5: -READONLY You can't …
//	@user_script: 5: -READONLY You can't …   both of Redis 6.2
//
// Only what stands at the beginning counts: further on there may be keys and values.
func errorCode(message string) (code, text string) {
	text = strings.TrimPrefix(message, "ERR ") // which some servers put in front of all
	if rest, ok := strings.CutPrefix(text, "Error running script (call to "); ok {
		if name, rest, ok := strings.Cut(rest, "): "); ok && !strings.Contains(name, " ") {
			text = rest
		}
	}
	for {
		rest, ok := cutScriptLine(text)
		if !ok {
			break
		}
		text = strings.TrimPrefix(rest, "-")
	}
	code, _, _ = strings.Cut(text, " ")
	return code, text
}

// cutScriptLine takes the line of a script off the beginning: "@user_script: 5: ".
func cutScriptLine(text string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(text, "@user_script:")
	if !ok {
		return text, false
	}
	line, rest, ok := strings.Cut(strings.TrimPrefix(rest, " "), ": ")
	if !ok || line == "" || strings.Trim(line, "0123456789") != "" {
		return text, false
	}
	return rest, true
}

// forbidden returns the command that a NOPERM is about, if it is about one: "… no
// permissions to run the 'client|setname' command".
func forbidden(text string) string {
	_, rest, _ := strings.Cut(text, " run the '")
	name, _, _ := strings.Cut(rest, "'")
	name, _, _ = strings.Cut(name, "|")
	return strings.ToLower(name)
}

// withoutRequest takes off what Redis repeats of a request that it does not know. There
// may be an owner value in that, which nobody is to see.
func withoutRequest(err error) error {
	if err == nil || !isAnswer(err) {
		return err
	}
	if text, _, repeats := strings.Cut(err.Error(), ", with args beginning with"); repeats {
		return answerText(text)
	}
	return err
}

// answerText is what Redis has answered, as an error.
type answerText string

func (e answerText) Error() string { return string(e) }

// RedisError has it count as an answer.
func (answerText) RedisError() {}

// isAnswer tells errors that Redis has answered, to whatever, from all others.
func isAnswer(err error) bool {
	var answer redis.Error
	return errors.As(err, &answer)
}

// setUpError is what Redis answered while a connection was set up, so that what was to
// be sent over it was not: a password that was changed, a database that there is not.
type setUpError struct{ error }

func (e *setUpError) Unwrap() error { return e.error }

// inSetUp marks an error of a connection that was being set up. Others than those that
// Redis answered tell by themselves whether anything was sent.
func inSetUp(err error) error {
	if err == nil || !isAnswer(err) {
		return err
	}
	return &setUpError{err}
}

// answered returns the first word of what Redis answered to a request, and all of it: see
// errorCode.
func answered(err error) (code, text string) {
	var answer redis.Error
	if !errors.As(err, &answer) || errors.As(err, new(*setUpError)) {
		return "", ""
	}
	return errorCode(answer.Error())
}

// isForbidden tells a NOPERM, about the command if one is named.
func isForbidden(err error, command string) bool {
	code, text := answered(err)
	return code == "NOPERM" && (command == "" || forbidden(text) == command)
}

// isUnknown tells that the server does not know the command.
func isUnknown(err error, command string) bool {
	_, text := answered(err)
	text, ok := strings.CutPrefix(strings.ToLower(text), "unknown command ")
	return ok && strings.HasPrefix(text[min(1, len(text)):], command) // in quotes of one kind or another
}

// strayed tells that the server is part of a cluster, which the client does not
// know of.
func (m *LockManager) strayed(err error) bool {
	if m.topology != nil || err == nil {
		return false
	}
	code, _ := answered(err)
	return code == "MOVED" || code == "ASK" || code == "CROSSSLOT"
}
