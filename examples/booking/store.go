package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"

	_ "modernc.org/sqlite"
)

var (
	errNoStudent = errors.New("no such student")
	errNoHours   = errors.New("no hours left")

	// errStaleToken: a later holder of the student's lock has been here. The
	// caller's lease ran out before it was done, and it changed nothing.
	errStaleToken = errors.New("stale fencing token")
)

// A store keeps students and their bookings in a SQLite file, which several
// processes may share.
//
// Every student has the highest fencing token seen so far, and whoever comes
// with a lower one is refused. An equal one is let in: it is the same holder,
// who comes more than once.
type store struct {
	db *sql.DB

	// betweenReadAndWrite, if set by a test, stops the world where it hurts.
	betweenReadAndWrite func()
}

// openStore touches the file only when the store is first used: see prepare.
func openStore(path string) (*store, error) {
	options := url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)"},
		// A transaction that writes takes its turn at the beginning.
		"_txlock": {"immediate"},
	}
	file := "file:" + (&url.URL{Path: path}).EscapedPath()
	db, err := sql.Open("sqlite", file+"?"+options.Encode())
	if err != nil {
		return nil, err
	}
	return &store{db: db}, nil
}

func (s *store) close() error { return s.db.Close() }

// prepare creates what is missing.
func (s *store) prepare(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, `
		CREATE TABLE IF NOT EXISTS students (
			id    TEXT PRIMARY KEY,
			hours INTEGER NOT NULL,
			token INTEGER NOT NULL
		);
		CREATE TABLE IF NOT EXISTS bookings (
			id      INTEGER PRIMARY KEY AUTOINCREMENT,
			student TEXT NOT NULL REFERENCES students (id),
			lesson  TEXT NOT NULL,
			token   INTEGER NOT NULL
		);`)
	return err
}

// setHours gives the student so many hours, and makes the student if need be.
func (s *store) setHours(ctx context.Context, student string, hours int, token int64) error {
	result, err := s.db.ExecContext(ctx, `
		INSERT INTO students (id, hours, token) VALUES (?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET hours = excluded.hours, token = excluded.token
		WHERE students.token <= excluded.token`, student, hours, token)
	if err != nil {
		return err
	}
	return refusedUnlessOne(result)
}

// book sells one of the student's hours and returns how many are left.
//
// It reads, decides and writes. Two at once, without a lock, read the same hours
// and sell the last one twice.
func (s *store) book(ctx context.Context, student, lesson string, token int64) (remaining int, err error) {
	hours, err := s.readHours(ctx, student, token)
	if err != nil {
		return 0, err
	}
	if hours <= 0 {
		return 0, errNoHours
	}
	if s.betweenReadAndWrite != nil {
		s.betweenReadAndWrite()
	}
	return hours - 1, s.writeBooking(ctx, student, lesson, hours-1, token)
}

// readHours leaves the token behind as it reads. Were it left only by the
// write, an earlier holder could still write after this read, and this holder
// would then overwrite what it has not seen.
func (s *store) readHours(ctx context.Context, student string, token int64) (hours int, err error) {
	err = s.db.QueryRowContext(ctx, `
		UPDATE students SET token = ?1 WHERE id = ?2 AND token <= ?1
		RETURNING hours`, token, student).Scan(&hours)
	if errors.Is(err, sql.ErrNoRows) {
		if _, err := s.account(ctx, student); err != nil {
			return 0, err
		}
		return 0, errStaleToken
	}
	return hours, err
}

// writeBooking writes what book has decided, all of it or nothing.
func (s *store) writeBooking(ctx context.Context, student, lesson string, hours int, token int64) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after Commit
	result, err := tx.ExecContext(ctx, `
		UPDATE students SET hours = ?1, token = ?2 WHERE id = ?3 AND token <= ?2`, hours, token, student)
	if err != nil {
		return err
	}
	if err := refusedUnlessOne(result); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `
		INSERT INTO bookings (student, lesson, token) VALUES (?, ?, ?)`, student, lesson, token); err != nil {
		return err
	}
	return tx.Commit()
}

// refusedUnlessOne tells a write that the token's check let through, and so
// changed a row, from one that it did not.
func refusedUnlessOne(result sql.Result) error {
	changed, err := result.RowsAffected()
	if err != nil {
		return err
	}
	if changed == 0 {
		return errStaleToken
	}
	return nil
}

// account is where a student stands.
type account struct {
	Student string `json:"student"`
	Hours   int    `json:"hours"`
	Booked  int    `json:"booked"`
	Token   int64  `json:"token"` // the highest seen
}

func (s *store) account(ctx context.Context, student string) (account, error) {
	a := account{Student: student}
	err := s.db.QueryRowContext(ctx, `
		SELECT hours, token, (SELECT count(*) FROM bookings WHERE student = students.id)
		FROM students WHERE id = ?`, student).Scan(&a.Hours, &a.Token, &a.Booked)
	if errors.Is(err, sql.ErrNoRows) {
		return account{}, fmt.Errorf("%w: %q", errNoStudent, student)
	}
	return a, err
}
