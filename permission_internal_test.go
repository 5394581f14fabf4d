package redislock

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// said is an error that a server has answered.
type said string

func (a said) Error() string { return string(a) }
func (said) RedisError()     {}

// What a server does not know or allow, each says in words of its own. As seen on
// Redis 6.2.16, 7.0.15 and 8.0.6, Redict 7.3.6, Valkey 8.1.1 and 9.1.2.
func TestDenialIsKnownInTheWordsOfEachServer(t *testing.T) {
	for _, text := range []string{
		"ERR unknown command `evalsha`, with args beginning with: `a`, ",
		"ERR unknown command 'evalsha', with args beginning with: 'a' ",
		"ERR Error running script (call to f_206396248e12c6e742fd7296250433c8d7343b74): @user_script:1: @user_script: 1: Unknown Redis command called from Lua script",
		"ERR Unknown Redis command called from script script: 206396248e12c6e742fd7296250433c8d7343b74, on @user_script:1.",
		"ERR Unknown Redict command called from script script: 206396248e12c6e742fd7296250433c8d7343b74, on @user_script:1.",
		"ERR Unknown command called from script script: on @user_script:1.",
		"NOPERM this user has no permissions to run the 'get' command",
		"ERR The user executing the script can't run this command or subcommand script: 2063, on @user_script:1.",
		"ERR Error running script (call to f_2063): @user_script:1: @user_script: 1: The user executing the script can't run this command or subcommand",
	} {
		require.True(t, isDenied(said(text)), text)
	}
	for _, text := range []string{
		"ERR syntax error",
		"ERR Unknown subcommand or wrong number of arguments for 'x'. Try PUBSUB HELP.",
		"ERR Unknown key 'a command called from ' of a script",
		"WRONGTYPE Operation against a key holding the wrong kind of value",
	} {
		require.False(t, isDenied(said(text)), text)
	}
}
