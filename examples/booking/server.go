package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/redislock/redislock"
)

const (
	// lockLease is how long a lock lasts if nobody releases it, and so how long
	// a student is blocked by a process that died. It is far above the time
	// that one booking takes. If a booking takes longer all the same, the token
	// is what keeps the hours right.
	lockLease = 5 * time.Second

	// lockWait is how long a request stands in line for a student.
	lockWait = 10 * time.Second

	maxHours  = 1000
	maxLesson = 200 // characters
	maxBody   = 16 << 10
)

// errNoLock: the student's lock was not to be had in time.
var errNoLock = errors.New("lock not acquired")

var studentID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

type server struct {
	locks *redislock.LockManager
	store *store
	log   *slog.Logger
	lease time.Duration
	wait  time.Duration
}

func newServer(locks *redislock.LockManager, store *store, log *slog.Logger) *server {
	return &server{locks: locks, store: store, log: log, lease: lockLease, wait: lockWait}
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /students/{id}", s.answer(s.putStudent))
	mux.HandleFunc("GET /students/{id}", s.answer(s.getStudent))
	mux.HandleFunc("POST /students/{id}/bookings", s.answer(s.postBooking))
	return mux
}

// locked runs fn while this process holds the student's lock. The token that fn
// gets goes along with everything it reads or writes.
func (s *server) locked(ctx context.Context, student string, fn func(token int64) error) error {
	// The request's context: a client that hangs up leaves the line.
	waiting, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	lock := s.locks.Lock(waiting, "student:"+student, s.lease)
	result := lock.Wait()
	if !result.OK() {
		return fmt.Errorf("%w: %w", errNoLock, result.Err)
	}
	defer func() {
		// ErrLost here is no harm done: whoever holds the lock now has the
		// higher token.
		if err := lock.Unlock(); err != nil {
			s.log.Warn("unlock", "student", student, "error", err)
		}
	}()
	return fn(result.Token)
}

func (s *server) postBooking(r *http.Request) (int, any, error) {
	student, err := pathStudent(r)
	if err != nil {
		return 0, nil, err
	}
	var body struct {
		Lesson string `json:"lesson"`
	}
	if err := readBody(r, &body); err != nil {
		return 0, nil, err
	}
	if n := utf8.RuneCountInString(body.Lesson); n == 0 || n > maxLesson {
		return 0, nil, badInput(`"lesson" has %d characters: want 1 to %d`, n, maxLesson)
	}

	booked := struct {
		Student   string `json:"student"`
		Lesson    string `json:"lesson"`
		Remaining int    `json:"remaining"`
		Token     int64  `json:"token"`
	}{Student: student, Lesson: body.Lesson}
	err = s.locked(r.Context(), student, func(token int64) (err error) {
		booked.Token = token
		booked.Remaining, err = s.store.book(r.Context(), student, body.Lesson, token)
		return err
	})
	return http.StatusCreated, booked, err
}

// putStudent takes the lock as well: hours set between another request's read
// and its write would be overwritten.
func (s *server) putStudent(r *http.Request) (int, any, error) {
	student, err := pathStudent(r)
	if err != nil {
		return 0, nil, err
	}
	var body struct {
		Hours *int `json:"hours"`
	}
	if err := readBody(r, &body); err != nil {
		return 0, nil, err
	}
	switch {
	case body.Hours == nil:
		return 0, nil, badInput(`"hours" is missing`)
	case *body.Hours < 0 || *body.Hours > maxHours:
		return 0, nil, badInput(`"hours" is %d: want 0 to %d`, *body.Hours, maxHours)
	}
	err = s.locked(r.Context(), student, func(token int64) error {
		return s.store.setHours(r.Context(), student, *body.Hours, token)
	})
	if err != nil {
		return 0, nil, err
	}
	return s.getStudent(r)
}

// getStudent needs no lock: nothing is written on the strength of what it reads.
func (s *server) getStudent(r *http.Request) (int, any, error) {
	student, err := pathStudent(r)
	if err != nil {
		return 0, nil, err
	}
	account, err := s.store.account(r.Context(), student)
	return http.StatusOK, account, err
}

// answer turns what an endpoint returns into JSON.
func (s *server) answer(endpoint func(*http.Request) (status int, body any, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		status, body, err := endpoint(r)
		if err != nil {
			var message string
			status, message = explain(err)
			body = map[string]string{"error": message}
		}
		if status >= 500 {
			s.log.Warn("request failed", "method", r.Method, "path", r.URL.Path, "status", status, "error", err)
		}
		if status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "1")
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(body); err != nil {
			s.log.Warn("answer not sent", "method", r.Method, "path", r.URL.Path, "error", err)
		}
	}
}

// explain tells the client what went wrong, and no more than it should know.
func explain(err error) (status int, message string) {
	var input *inputError
	switch {
	case errors.As(err, &input):
		return http.StatusBadRequest, input.message
	case errors.Is(err, errNoStudent):
		return http.StatusNotFound, "no such student"
	case errors.Is(err, errNoHours):
		return http.StatusConflict, "no hours left"
	case errors.Is(err, errNoLock):
		return http.StatusServiceUnavailable, "the student's lock was not to be had in time: nothing was changed, try again"
	case errors.Is(err, errStaleToken):
		return http.StatusServiceUnavailable, "the student's lock was lost on the way: nothing was changed, try again"
	}
	return http.StatusInternalServerError, "internal error"
}

// inputError is the client's own fault, and its message is for the client.
type inputError struct{ message string }

func (e *inputError) Error() string { return e.message }

func badInput(format string, args ...any) error {
	return &inputError{fmt.Sprintf(format, args...)}
}

func pathStudent(r *http.Request) (string, error) {
	id := r.PathValue("id")
	if !studentID.MatchString(id) {
		return "", badInput("student id %q: want 1 to 64 of the characters A-Z a-z 0-9 _ -", id)
	}
	return id, nil
}

// readBody decodes the one JSON object that the body has to be.
func readBody(r *http.Request, into any) error {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil {
		if _, err = decoder.Token(); err == io.EOF {
			return nil
		}
		return badInput("the body goes on after the JSON object")
	}
	var wrongType *json.UnmarshalTypeError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, io.EOF):
		return badInput("the body is empty: want a JSON object")
	case errors.As(err, &tooLarge):
		return badInput("the body is larger than %d bytes", tooLarge.Limit)
	case errors.As(err, &wrongType) && wrongType.Field == "":
		return badInput("the body is a JSON %s: want an object", wrongType.Value)
	case errors.As(err, &wrongType):
		return badInput("%q is a JSON %s: want %s", wrongType.Field, wrongType.Value, wrongType.Type)
	}
	return badInput("the body cannot be used: %v", err)
}
