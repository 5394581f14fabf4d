package simulation

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"math"
	"strings"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/parse"
)

// The library's scripts run as they are. Compiled code and the interpreter are
// kept over all runs: making them anew would take most of the time. Only one
// simulation runs at a time.
var (
	compiled    = make(map[string]*lua.FunctionProto) // by SHA-1
	interpreter = newInterpreter()
	inScript    func(args []string) any // carries out a command of the script that runs
)

func shaOf(text string) string {
	sum := sha1.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}

func compile(text string) (sha string, err error) {
	sha = shaOf(text)
	if compiled[sha] == nil {
		chunk, err := parse.Parse(strings.NewReader(text), "script")
		if err != nil {
			return "", err
		}
		proto, err := lua.Compile(chunk, "script")
		if err != nil {
			return "", err
		}
		compiled[sha] = proto
	}
	return sha, nil
}

func newInterpreter() *lua.LState {
	l := lua.NewState(lua.Options{SkipOpenLibs: true})
	for _, open := range []lua.LGFunction{lua.OpenBase, lua.OpenTable, lua.OpenString, lua.OpenMath} {
		l.Push(l.NewFunction(open))
		l.Call(0, 0)
	}
	redis := l.NewTable()
	redis.RawSetString("call", l.NewFunction(func(l *lua.LState) int {
		reply := inScript(arguments(l))
		if text, ok := reply.(failure); ok {
			l.Error(toLua(l, text), 1)
		}
		l.Push(toLua(l, reply))
		return 1
	}))
	redis.RawSetString("pcall", l.NewFunction(func(l *lua.LState) int {
		l.Push(toLua(l, inScript(arguments(l))))
		return 1
	}))
	l.SetGlobal("redis", redis)
	return l
}

func arguments(l *lua.LState) []string {
	args := make([]string, l.GetTop())
	for i := range args {
		switch v := l.Get(i + 1).(type) {
		case lua.LString:
			args[i] = string(v)
		case lua.LNumber:
			args[i] = number(float64(v))
		default:
			l.RaiseError("Lua redis lib command arguments must be strings or integers")
		}
	}
	return args
}

// run executes a script; do carries out its commands.
func run(sha string, keys, args []string, do func(args []string) any) (reply any) {
	l := interpreter
	inScript = do
	l.SetGlobal("KEYS", list(l, keys))
	l.SetGlobal("ARGV", list(l, args))
	l.Push(l.NewFunctionFromProto(compiled[sha]))
	if err := l.PCall(0, 1, nil); err != nil {
		l.SetTop(0)
		if failed, ok := err.(*lua.ApiError); ok {
			if t, ok := failed.Object.(*lua.LTable); ok {
				return failure(lua.LVAsString(t.RawGetString("err")))
			}
		}
		return failure("ERR " + strings.ReplaceAll(err.Error(), "\n", " "))
	}
	v := l.Get(-1)
	l.SetTop(0)
	return fromLua(v)
}

func list(l *lua.LState, values []string) *lua.LTable {
	t := l.CreateTable(len(values), 0)
	for _, v := range values {
		t.Append(lua.LString(v))
	}
	return t
}

// toLua gives a reply the shape in which scripts see it (RESP2).
func toLua(l *lua.LState, reply any) lua.LValue {
	switch reply := reply.(type) {
	case nil:
		return lua.LFalse
	case string:
		return lua.LString(reply)
	case float64:
		return lua.LString(number(reply))
	case int64:
		return lua.LNumber(reply)
	case status:
		t := l.NewTable()
		t.RawSetString("ok", lua.LString(reply))
		return t
	case failure:
		t := l.NewTable()
		t.RawSetString("err", lua.LString(reply))
		return t
	case []any:
		t := l.CreateTable(len(reply), 0)
		for _, v := range reply {
			t.Append(toLua(l, v))
		}
		return t
	}
	panic(fmt.Sprintf("reply of type %T", reply))
}

// fromLua makes a reply of what a script returns.
func fromLua(v lua.LValue) any {
	switch v := v.(type) {
	case lua.LString:
		return string(v)
	case lua.LNumber:
		return int64(math.Trunc(float64(v)))
	case lua.LBool:
		if v {
			return int64(1)
		}
		return nil
	case *lua.LTable:
		if err := v.RawGetString("err"); err != lua.LNil {
			return failure(lua.LVAsString(err))
		}
		if ok := v.RawGetString("ok"); ok != lua.LNil {
			return status(lua.LVAsString(ok))
		}
		reply := make([]any, 0, v.Len())
		for i := 1; i <= v.Len(); i++ {
			reply = append(reply, fromLua(v.RawGetInt(i)))
		}
		return reply
	}
	return nil
}
