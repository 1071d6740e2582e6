package testkit

import (
	"fmt"
	"testing"
)

// NoError ends the test unless err is nil: for what only prepares a test, or must not fail in it.
func NoError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Equal compares what a test has got with what it wants; the rest says of what.
func Equal[T comparable](t testing.TB, got, want T, of ...any) {
	t.Helper()
	if got != want {
		t.Errorf("%s got %v\nwant %v", fmt.Sprintln(of...), got, want)
	}
}

// Each runs a test for each case of a table, under the case's name, all at the same time.
func Each[C any](t *testing.T, cases map[string]C, test func(t *testing.T, name string, c C)) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, name, c)
		})
	}
}

// EachOf is Each for cases that are their own names.
func EachOf[C any](t *testing.T, cases []C, test func(t *testing.T, c C)) {
	t.Helper()
	for _, c := range cases {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			test(t, c)
		})
	}
}
