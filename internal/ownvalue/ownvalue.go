// Package ownvalue makes the owner values of locks.
package ownvalue

import (
	"context"

	"github.com/google/uuid"
)

// New makes the owner value of an acquisition with ctx: a random one, that nobody else
// has.
var New = func(context.Context) (string, error) {
	id, err := uuid.NewRandom()
	return id.String(), err
}

type key struct{}

// Foresee has New take the value from the context, if With has put one there: for
// programs that check the library, and have to know beforehand which acquisition a
// value is of. A value of theirs has to be as unique as a random one. It is called
// before any manager is made.
func Foresee() {
	random := New
	New = func(ctx context.Context) (string, error) {
		if value, ok := ctx.Value(key{}).(string); ok {
			return value, nil
		}
		return random(ctx)
	}
}

// With returns a context that has a value for one acquisition.
func With(ctx context.Context, value string) context.Context {
	return context.WithValue(ctx, key{}, value)
}
