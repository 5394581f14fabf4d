package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redislock/redislock"
	"github.com/redislock/redislock/internal/redistest"
)

func newTestServer(t *testing.T, redis *redistest.Server, store *store) *server {
	t.Helper()
	manager, err := redislock.NewLockManager(redis.Client(nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := manager.Close(); err != nil {
			t.Error(err)
		}
	})
	return newServer(manager, store, slog.New(slog.NewTextHandler(t.Output(), nil)))
}

// reply is what any endpoint may answer.
type reply struct {
	status     int
	retryAfter string

	Error     string
	Hours     int
	Booked    int
	Remaining int
	Token     int64
}

func call(t *testing.T, s *server, method, path, body string) reply {
	t.Helper()
	recorder := httptest.NewRecorder()
	s.handler().ServeHTTP(recorder, httptest.NewRequest(method, path, strings.NewReader(body)))
	r, err := readReply(recorder.Result())
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
	}
	return r
}

func readReply(response *http.Response) (reply, error) {
	defer response.Body.Close()
	r := reply{status: response.StatusCode, retryAfter: response.Header.Get("Retry-After")}
	return r, json.NewDecoder(response.Body).Decode(&r)
}

func TestBadInputIsNamed(t *testing.T) {
	s := newTestServer(t, redistest.Start(t), newStore(t))
	const (
		student  = "/students/ann"
		bookings = "/students/ann/bookings"
	)
	tests := []struct {
		name, method, path, body string
		want                     string // a part of the message
	}{
		{"empty body", "PUT", student, ``, "body is empty"},
		{"no JSON", "PUT", student, `hours=5`, "invalid character 'h'"},
		{"JSON cut short", "PUT", student, `{"hours":`, "unexpected EOF"},
		{"no object", "PUT", student, `[5]`, "body is a JSON array: want an object"},
		{"two objects", "PUT", student, `{"hours":5}{"hours":6}`, "goes on after"},
		{"unknown field", "PUT", student, `{"hour":5}`, `unknown field "hour"`},
		{"no hours", "PUT", student, `{}`, `"hours" is missing`},
		{"hours null", "PUT", student, `{"hours":null}`, `"hours" is missing`},
		{"hours below 0", "PUT", student, `{"hours":-1}`, `"hours" is -1: want 0 to 1000`},
		{"too many hours", "PUT", student, `{"hours":1001}`, `"hours" is 1001`},
		{"half an hour", "PUT", student, `{"hours":0.5}`, `"hours" is a JSON number 0.5: want int`},
		{"hours in words", "PUT", student, `{"hours":"five"}`, `"hours" is a JSON string: want int`},
		{"no lesson", "POST", bookings, `{}`, `"lesson" has 0 characters`},
		{"lesson too long", "POST", bookings, `{"lesson":"` + strings.Repeat("ö", 201) + `"}`, `"lesson" has 201 characters: want 1 to 200`},
		{"lesson a number", "POST", bookings, `{"lesson":5}`, `"lesson" is a JSON number: want string`},
		{"large body", "POST", bookings, `{"lesson":"` + strings.Repeat("x", maxBody) + `"}`, "body is larger than 16384 bytes"},
		{"id with a space", "POST", "/students/a%20b/bookings", `{"lesson":"piano"}`, `student id "a b"`},
		{"id with a slash", "GET", "/students/a%2Fb", ``, `student id "a/b"`},
		{"id too long", "GET", "/students/" + strings.Repeat("a", 65), ``, "want 1 to 64"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := call(t, s, test.method, test.path, test.body)
			if r.status != http.StatusBadRequest || !strings.Contains(r.Error, test.want) {
				t.Errorf("got %d %q, want 400 with %q", r.status, r.Error, test.want)
			}
		})
	}
}

func TestAStudentIsMadeReadAndBooked(t *testing.T) {
	s := newTestServer(t, redistest.Start(t), newStore(t))
	steps := []struct {
		method, path, body string
		want               reply // without the token, which is whatever it is
	}{
		{"GET", "/students/ann", ``, reply{status: 404, Error: "no such student"}},
		{"POST", "/students/ann/bookings", `{"lesson":"piano"}`, reply{status: 404, Error: "no such student"}},
		{"PUT", "/students/ann", `{"hours":1}`, reply{status: 200, Hours: 1}},
		{"POST", "/students/ann/bookings", `{"lesson":"piano"}`, reply{status: 201}},
		{"POST", "/students/ann/bookings", `{"lesson":"piano"}`, reply{status: 409, Error: "no hours left"}},
		{"PUT", "/students/ann", `{"hours":3}`, reply{status: 200, Hours: 3, Booked: 1}},
		{"POST", "/students/ann/bookings", `{"lesson":"violin"}`, reply{status: 201, Remaining: 2}},
		{"GET", "/students/ann", ``, reply{status: 200, Hours: 2, Booked: 2}},
	}
	for _, step := range steps {
		got := call(t, s, step.method, step.path, step.body)
		if got.status < 300 && got.Token == 0 {
			t.Errorf("%s %s: no token", step.method, step.path)
		}
		got.Token = 0
		if got != step.want {
			t.Errorf("%s %s: got %+v, want %+v", step.method, step.path, got, step.want)
		}
	}
}

func TestALockThatIsNotToBeHadInTimeIsA503(t *testing.T) {
	s := newTestServer(t, redistest.Start(t), newStore(t))
	call(t, s, "PUT", "/students/ann", `{"hours":1}`)
	lock := s.locks.Lock(t.Context(), "student:ann", time.Minute)
	if result := lock.Wait(); !result.OK() {
		t.Fatal(result.Err)
	}

	s.wait = 20 * time.Millisecond
	r := call(t, s, "POST", "/students/ann/bookings", `{"lesson":"piano"}`)
	if r.status != http.StatusServiceUnavailable || r.retryAfter != "1" || !strings.Contains(r.Error, "not to be had in time") {
		t.Errorf("with the lock taken: got %+v", r)
	}

	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	s.wait = lockWait
	if r := call(t, s, "POST", "/students/ann/bookings", `{"lesson":"piano"}`); r.status != http.StatusCreated {
		t.Errorf("with the lock free: got %+v", r)
	}
}

// A process stops between its read and its write, for longer than its lease, as
// in a long garbage collection or on a suspended machine. Another one books
// meanwhile. What the first then writes was decided on hours that are no more.
func TestAHolderPausedBeyondItsLeaseCannotWrite(t *testing.T) {
	redis := redistest.Start(t)
	path := filepath.Join(t.TempDir(), "booking.db")
	first := newTestServer(t, redis, newStoreAt(t, path))
	second := newTestServer(t, redis, newStoreAt(t, path))
	call(t, second, "PUT", "/students/ann", `{"hours":5}`)

	paused, resume := make(chan struct{}), make(chan struct{})
	first.lease = 50 * time.Millisecond
	first.store.betweenReadAndWrite = func() {
		close(paused)
		<-resume
	}
	answer := make(chan reply)
	go func() { answer <- call(t, first, "POST", "/students/ann/bookings", `{"lesson":"piano"}`) }()
	<-paused

	// Gets the lock when the first one's lease has run out.
	if r := call(t, second, "POST", "/students/ann/bookings", `{"lesson":"violin"}`); r.status != http.StatusCreated || r.Remaining != 4 {
		t.Errorf("the second holder: got %+v, want 201 with 4 remaining", r)
	}
	close(resume)
	r := <-answer
	if r.status != http.StatusServiceUnavailable || r.retryAfter != "1" || !strings.Contains(r.Error, "was lost on the way") {
		t.Errorf("the paused holder: got %+v, want 503", r)
	}
	if r := call(t, first, "GET", "/students/ann", ""); r.Hours != 4 || r.Booked != 1 {
		t.Errorf("after all: got %+v, want 4 hours and 1 booking", r)
	}
}
