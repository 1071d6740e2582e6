package harness

import (
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"auditstream/internal/testkit"
)

// NoError ends the test at an error.
func NoError(t testing.TB, err error) {
	t.Helper()
	testkit.NoError(t, err)
}

// Equal compares two values; the rest says of what they are.
func Equal[T comparable](t testing.TB, got, want T, of ...any) {
	t.Helper()
	testkit.Equal(t, got, want, of...)
}

// WantIn checks that a text has all of some parts.
func WantIn(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in\n%.4000s", part, text)
		}
	}
}

// WantNoneIn checks that a text has none of some parts.
func WantNoneIn(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if before, _, found := strings.Cut(text, part); found {
			t.Errorf("%q is in the text, after\n%s", part, before[max(0, len(before)-2000):])
		}
	}
}

// WantHeaders compares headers of an answer.
func WantHeaders(t testing.TB, of http.Header, want map[string]string) {
	t.Helper()
	for name, want := range want {
		if got := of.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// WellFormed checks that a drawing is XML, with numbers for coordinates.
func WellFormed(t testing.TB, drawing string) {
	t.Helper()
	for decoder := xml.NewDecoder(strings.NewReader(drawing)); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, drawing)
		}
	}
	WantNoneIn(t, drawing, "NaN", "Inf")
}
