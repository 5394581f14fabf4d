package redislock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// answerError is an error as Redis answers it.
type answerError string

func (e answerError) Error() string { return string(e) }
func (answerError) RedisError()     {}

const sha = "c664a3bf70bd1d45c4284ffebb65a6f2299bfc9f"

// How a script passes on what a command in it was refused with, by server; %s is that.
var passedOn = map[string]string{
	"6.2, raised":        "ERR Error running script (call to f_" + sha + "): @user_script:58: @user_script: 58: -%s ",
	"6.2, returned":      "@user_script: 31: -%s  ",
	"6.2, of a command":  "ERR Error running script (call to f_" + sha + "): @user_script:7: %s",
	"7, raised":          "%s script: " + sha + ", on @user_script:58.",
	"Valkey, raised":     "%s script: on @user_script:58.",
	"returned, or plain": "%s",
	"Kvrocks":            "ERR %s",
}

var saidOf = map[string]failure{
	"READONLY You can't write against a read only replica.":                            replica,
	"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": replica,
	"LOADING Redis is loading the dataset in memory":                                   changing,
	"CLUSTERDOWN The cluster is down":                                                  changing,
	"TRYAGAIN Multiple keys request during rehashing of slot":                          changing,
	"OOM command not allowed when used memory > 'maxmemory'.":                          unready,
	"NOREPLICAS Not enough good replicas to write.":                                    unready,
	"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to":  unready,
	"BUSY Redis is busy running a script. You can only call SCRIPT KILL":               unready,
	"UNBLOCKED client unblocked via CLIENT UNBLOCK":                                    unready,
	"UNBLOCKED force unblock from blocking operation, instance state changed":          unready,
	"WRONGTYPE Operation against a key holding the wrong kind of value":                final,
}

func TestRefusalsAreKnownHoweverAScriptPassesThemOn(t *testing.T) {
	for text, want := range saidOf {
		for by, form := range passedOn {
			err := answerError(fmt.Sprintf(form, text))
			require.Equal(t, want, classify(err), "%s: %q", by, err)
			require.Equal(t, want, classify(fmt.Errorf("by a hook: %w", err)), "%s: %q", by, err)
		}
	}
}

func TestWhatAnErrorSaysOfARequest(t *testing.T) {
	for text, want := range map[string]failure{
		"NOSCRIPT No matching script. Please use EVAL.":                                     noScript,
		"NOSCRIPT No matching script.":                                                      noScript,
		"MOVED 3999 127.0.0.1:6381":                                                         elsewhere,
		"ASK 3999 127.0.0.1:6381":                                                           elsewhere,
		"BUSYKEY Target key name already exists.":                                           final,
		"ERR max number of clients reached":                                                 unsent,
		"ERR max number of clients + cluster connections reached":                           unsent,
		"NOAUTH Authentication required.":                                                   unsent,
		"WRONGPASS invalid username-password pair or user is disabled.":                     unsent,
		"DENIED Redis is running in protected mode because":                                 unsent,
		"NOPERM User u has no permissions to run the 'select' command":                      unsent,
		"NOPERM this user has no permissions to run the 'client|setname' command":           unsent,
		"NOPERM this user has no permissions to run the 'client' command or its subcommand": unsent,
		"NOPERM this user has no permissions to run the 'evalsha' command":                  final,
		"NOPERM No permissions to access a key":                                             final,
		"NOPERM No permissions to access a channel":                                         final,
		"ERR The user executing the script can't run this command or subcommand":            final,
		"ERR unknown command 'evalsha', with args beginning with: 'READONLY ' 'OOM '":       final,
		"ERR unknown command `evalsha`, with args beginning with: `-READONLY You`":          final,
		"CROSSSLOT Keys in request don't hash to the same slot":                             final,
		"": final,
	} {
		require.Equal(t, want, classify(answerError(text)), "%q", text)
	}
	dial := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	for err, want := range map[error]failure{
		redis.Nil:                              empty,
		fmt.Errorf("by a hook: %w", redis.Nil): empty,
		redis.ErrClosed:                        clientEnded,
		redis.ErrPoolTimeout:                   unsent,
		redis.ErrPoolExhausted:                 unsent,
		dial:                                   unsent,
		fmt.Errorf("by a wrapper: %w", dial):   unsent,
		&net.OpError{Op: "read"}:               unanswered,
		io.EOF:                                 unanswered,
		context.DeadlineExceeded:               unanswered,
	} {
		require.Equal(t, want, classify(err), "%v", err)
	}
	require.Equal(t, success, classify(nil))
}

// Whatever the server says while a connection is set up, the request has not had its
// answer: neither nil, nor that a script is not known, nor that a key is elsewhere.
func TestWhatIsSaidOfAConnectionIsNoAnswer(t *testing.T) {
	for _, err := range []error{
		redis.Nil, answerError("NOSCRIPT No matching script."), answerError("MOVED 1 127.0.0.1:1"), answerError("ASK 1 127.0.0.1:1"),
		answerError("ERR DB index is out of range"), answerError("NOPERM No permissions to access a key"),
		answerError("ERR AUTH <password> called without any password configured for the default user."),
	} {
		require.Equal(t, unsent, classify(inSetUp(err)), "%v", err)
	}
	for text, want := range saidOf {
		if want != final {
			require.Equal(t, want, classify(inSetUp(answerError(text))), "it passes, as %q does", text)
		}
	}
	require.Equal(t, unanswered, classify(inSetUp(io.EOF)), "it is not known where that befell")
	require.NoError(t, inSetUp(nil))
}

// Only what Redis itself puts in front counts: no key, value or argument that it repeats
// is taken for its word, whatever is in it.
func FuzzErrorCodes(f *testing.F) {
	for text := range saidOf {
		for _, form := range passedOn {
			f.Add(fmt.Sprintf(form, text), text)
		}
	}
	f.Add("@user_script:", "@user_script: 1: ")
	f.Add("ERR ERR READONLY ", "Error running script (call to f_): -OOM ")
	known := regexp.MustCompile(`^(?s:(ERR )?(Error running script \(call to [^ ]*?\): )?(@user_script: ?[0-9]+: -?)*` +
		`((NOSCRIPT|MOVED|ASK|LOADING|CLUSTERDOWN|TRYAGAIN|READONLY|MASTERDOWN|BUSY|OOM|MISCONF|NOREPLICAS|UNBLOCKED|NOAUTH|WRONGPASS|DENIED|NOPERM)( |$)|max number of clients))`)
	f.Fuzz(func(t *testing.T, text, argument string) {
		if got := classify(answerError(text)); got != final && !known.MatchString(text) {
			t.Errorf("%q counts as %d", text, got)
		}
		for _, message := range []string{
			"ERR unknown command 'evalsha', with args beginning with: '" + argument + "' ",
			"ERR wrong number of arguments for '" + argument + "' command",
			"WRONGTYPE " + argument,
			"ERR " + sha + " " + argument,
			"NOPERM No permissions to access a key: " + strings.ReplaceAll(argument, " run the '", ""),
		} {
			if got := classify(answerError(message)); got != final {
				t.Errorf("%q counts as %d", message, got)
			}
		}
		for refusal, want := range saidOf {
			for by, form := range passedOn {
				message := fmt.Sprintf(form, refusal+" "+argument)
				if got := classify(answerError(message)); got != want {
					t.Errorf("%s: %q counts as %d", by, message, got)
				}
			}
		}
	})
}
