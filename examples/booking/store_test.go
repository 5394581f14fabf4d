package main

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
)

// newStore returns a store on a file of the test's own.
func newStore(t *testing.T) *store { return newStoreAt(t, filepath.Join(t.TempDir(), "a b?c.db")) }

func newStoreAt(t *testing.T, path string) *store {
	t.Helper()
	s, err := openStore(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *store) mustSetHours(t *testing.T, student string, hours int, token int64) {
	t.Helper()
	if err := s.setHours(t.Context(), student, hours, token); err != nil {
		t.Fatal(err)
	}
}

func (s *store) mustBe(t *testing.T, want account) {
	t.Helper()
	got, err := s.account(context.Background(), want.Student)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("account is %+v, want %+v", got, want)
	}
}

// What the lock is for: everybody reads before anybody writes, and one hour is
// sold to each of them. The token they share stands for having no lock.
func TestOneHourIsOversoldWithoutALock(t *testing.T) {
	const buyers, token = 5, 1
	s := newStore(t)
	s.mustSetHours(t, "ann", 1, token)

	var haveRead sync.WaitGroup
	haveRead.Add(buyers)
	s.betweenReadAndWrite = func() {
		haveRead.Done()
		haveRead.Wait()
	}
	errs := make(chan error, buyers)
	for range buyers {
		go func() {
			_, err := s.book(t.Context(), "ann", "piano", token)
			errs <- err
		}()
	}
	for range buyers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	s.mustBe(t, account{Student: "ann", Hours: 0, Booked: buyers, Token: token})
}

func TestAHolderMayComeMoreThanOnce(t *testing.T) {
	s := newStore(t)
	s.mustSetHours(t, "ann", 2, 7)
	for want := 1; want >= 0; want-- {
		remaining, err := s.book(t.Context(), "ann", "piano", 7)
		if err != nil || remaining != want {
			t.Fatalf("book: %d, %v, want %d", remaining, err, want)
		}
	}
	if _, err := s.book(t.Context(), "ann", "piano", 7); !errors.Is(err, errNoHours) {
		t.Errorf("book without hours: %v, want %v", err, errNoHours)
	}
	s.mustBe(t, account{Student: "ann", Hours: 0, Booked: 2, Token: 7})
}

func TestAStaleTokenIsRefused(t *testing.T) {
	ctx := t.Context()
	later := map[string]func(*store) error{
		"after a later holder's booking": func(s *store) error {
			_, err := s.book(ctx, "ann", "violin", 8)
			return err
		},
		"after a later holder has set the hours": func(s *store) error {
			return s.setHours(ctx, "ann", 4, 8)
		},
		// If this one were let in, the later holder would write over it.
		"after a later holder has only read": func(s *store) error {
			_, err := s.readHours(ctx, "ann", 8)
			return err
		},
	}
	stale := map[string]func(*store) error{
		"a whole booking": func(s *store) error {
			_, err := s.book(ctx, "ann", "piano", 7)
			return err
		},
		"the write of a booking": func(s *store) error {
			return s.writeBooking(ctx, "ann", "piano", 4, 7)
		},
		"setting the hours": func(s *store) error {
			return s.setHours(ctx, "ann", 100, 7)
		},
	}
	for when, later := range later {
		for what, stale := range stale {
			t.Run(what+" "+when, func(t *testing.T) {
				s := newStore(t)
				s.mustSetHours(t, "ann", 5, 7)
				if err := later(s); err != nil {
					t.Fatal(err)
				}
				before, err := s.account(ctx, "ann")
				if err != nil {
					t.Fatal(err)
				}
				if err := stale(s); !errors.Is(err, errStaleToken) {
					t.Errorf("got %v, want %v", err, errStaleToken)
				}
				s.mustBe(t, before)
			})
		}
	}
}

func TestAStudentsTokenIsNoOtherStudents(t *testing.T) {
	s := newStore(t)
	s.mustSetHours(t, "ann", 1, 9)
	s.mustSetHours(t, "bob", 1, 2)
	if _, err := s.book(t.Context(), "bob", "piano", 3); err != nil {
		t.Error(err)
	}
	s.mustBe(t, account{Student: "bob", Hours: 0, Booked: 1, Token: 3})
}

func TestAnUnknownStudentCannotBook(t *testing.T) {
	s := newStore(t)
	if _, err := s.book(t.Context(), "nobody", "piano", 1); !errors.Is(err, errNoStudent) {
		t.Errorf("got %v, want %v", err, errNoStudent)
	}
}
