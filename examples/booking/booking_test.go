package main

import (
	"bufio"
	"bytes"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redislock/redislock/internal/redistest"
)

// serveVar, set in its environment, makes this test binary the service itself.
const serveVar = "BOOKING_TEST_SERVE"

func TestMain(m *testing.M) {
	if os.Getenv(serveVar) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// A process is the service, running on its own.
type process struct {
	t      *testing.T
	url    string
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

// startProcess returns before the service listens: see waitUntilUp.
func startProcess(t *testing.T, redisURL string, args ...string) (p *process, waitUntilUp func()) {
	t.Helper()
	p = &process{t: t, cmd: exec.Command(os.Args[0], append([]string{"-addr", "127.0.0.1:0"}, args...)...)}
	p.cmd.Env = append(os.Environ(), serveVar+"=1", "REDIS_URL="+redisURL)
	p.cmd.Stderr = &p.stderr
	// A test binary that is killed takes its processes along.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("process %d wrote:\n%s", p.cmd.Process.Pid, &p.stderr)
		}
	})
	return p, func() {
		t.Helper()
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if url, found := strings.CutPrefix(lines.Text(), "listening on "); found {
				p.url = url
				return
			}
		}
		t.Fatal("the service ended before it listened")
	}
}

// stop asks the services to stop, and wants them to do so in good order.
func stop(t *testing.T, services ...*process) {
	t.Helper()
	for _, p := range services {
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}
	for _, p := range services {
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("process %d, told to stop: %v", p.cmd.Process.Pid, err)
		}
	}
}

// Connections that are dialled and then not used would hold up a service that
// stops, for 5 seconds: without keep-alive there are none.
var client = &http.Client{
	Transport: &http.Transport{DisableKeepAlives: true},
	Timeout:   time.Minute,
}

func (p *process) call(method, path, body string) (reply, error) {
	request, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	response, err := client.Do(request)
	if err != nil {
		return reply{}, err
	}
	return readReply(response)
}

func (p *process) mustCall(method, path, body string, status int) reply {
	p.t.Helper()
	r, err := p.call(method, path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	if r.status != status {
		p.t.Fatalf("%s %s: got %+v, want %d", method, path, r, status)
	}
	return r
}

// The classic case: 60 requests over three processes for 20 hours.
func TestSeveralProcessesSellEachHourOnce(t *testing.T) {
	const processes, requests, hours = 3, 60, 20
	redis := redistest.Start(t)
	path := filepath.Join(t.TempDir(), "booking.db")
	var services []*process
	var ups []func()
	for range processes {
		p, waitUntilUp := startProcess(t, "redis://"+redis.Addr, "-db", path)
		services, ups = append(services, p), append(ups, waitUntilUp)
	}
	for _, waitUntilUp := range ups {
		waitUntilUp()
	}
	services[0].mustCall("PUT", "/students/ann", fmt.Sprintf(`{"hours":%d}`, hours), 200)

	type outcome struct {
		reply
		err error
	}
	outcomes := make(chan outcome)
	start := make(chan struct{})
	for i := range requests {
		go func() {
			<-start
			r, err := services[i%processes].call("POST", "/students/ann/bookings", fmt.Sprintf(`{"lesson":"lesson %d"}`, i))
			outcomes <- outcome{r, err}
		}()
	}
	close(start)

	statuses := make(map[int]int)
	remaining := make(map[int64]int) // by token
	for range requests {
		o := <-outcomes
		if o.err != nil {
			t.Error(o.err)
			continue
		}
		statuses[o.status]++
		if o.status == 201 {
			remaining[o.Token] = o.Remaining
		}
	}
	if len(statuses) != 2 || statuses[201] != hours || statuses[409] != requests-hours {
		t.Errorf("statuses and how often: %v, want 201: %d, 409: %d", statuses, hours, requests-hours)
	}
	if r := services[1].mustCall("GET", "/students/ann", "", 200); r.Hours != 0 || r.Booked != hours {
		t.Errorf("after all: %d hours and %d bookings, want 0 and %d", r.Hours, r.Booked, hours)
	}
	stop(t, services...)

	tokens := bookingTokens(t, path)
	if len(tokens) != hours {
		t.Errorf("%d bookings in the database, want %d", len(tokens), hours)
	}
	for i, token := range tokens {
		if i > 0 && token <= tokens[i-1] {
			t.Errorf("booking %d has the token %d, not above the %d of the one before", i+1, token, tokens[i-1])
		}
		if left, told := remaining[token]; !told || left != hours-1-i {
			t.Errorf("booking %d, token %d: its client was told %d remaining (%t), want %d", i+1, token, left, told, hours-1-i)
		}
	}
}

// bookingTokens returns the tokens in the order of the bookings.
func bookingTokens(t *testing.T, path string) (tokens []int64) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query("SELECT token FROM bookings ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var token int64
		if err := rows.Scan(&token); err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, token)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return tokens
}

// A new embedded Redis knows no old tokens, and still has to draw higher ones.
func TestItRunsWithNothingConfigured(t *testing.T) {
	path := filepath.Join(t.TempDir(), "booking.db")
	var last int64
	for left := 1; left >= 0; left-- {
		p, waitUntilUp := startProcess(t, "", "-db", path)
		waitUntilUp()
		if last == 0 {
			p.mustCall("PUT", "/students/ann", `{"hours":2}`, 200)
		}
		r := p.mustCall("POST", "/students/ann/bookings", `{"lesson":"piano"}`, 201)
		if r.Remaining != left || r.Token <= last {
			t.Errorf("got %+v, want %d remaining and a token above %d", r, left, last)
		}
		last = r.Token
		stop(t, p)
	}
}

func TestWhatCannotBeUsedIsNamedAtTheStart(t *testing.T) {
	tests := []struct {
		name, redisURL string
		args           []string
		want           string
	}{
		{"Redis URL", "localhost:6379", nil, "REDIS_URL"},
		{"address", "", []string{"-addr", "nowhere"}, "nowhere"},
		{"database", "", []string{"-db", "/no/such/folder/x.db"}, "prepare the database"},
		{"argument", "", []string{"serve"}, `"serve"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("REDIS_URL", test.redisURL)
			t.Setenv("TMPDIR", t.TempDir())
			if err := run(test.args, io.Discard); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %s", err, test.want)
			}
		})
	}
}
