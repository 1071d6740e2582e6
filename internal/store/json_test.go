package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"auditstream/internal/testkit"
)

// The fingerprint is a promise to clients of other versions and instances: it may not change by accident.
// The wanted values were computed with sha256sum from the JSON text, not by this program.
func TestFingerprintIsOfTheJSON(t *testing.T) {
	t.Parallel()
	for want, audit := range map[string]Row{
		"505770479905bb9b": {ID: "1", Status: "pending"},
		"65be5e25449ce208": {ID: "123", Status: "running", Progress: 25, Message: p("Analyzing pages...")},
		"7e96af8ea0947d8e": {ID: "123", Status: "completed", Progress: 100, GeoScore: p(78.5), Error: p("not shown")},
		"7f9b7d4d870059e0": {ID: IntKey(math.MaxInt64), Status: "failed", Progress: 40, Error: p("<É>"), UserID: p("not shown")},
	} {
		testkit.Equal(t, NewState(audit).Fingerprint, want, string(audit.JSON()))
	}
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]bool{
		"completed": true, "failed": true, "running": false, "pending": false, "cancelled": false, "": false, "Completed": false,
	} {
		testkit.Equal(t, NewState(Row{ID: "1", Status: status}).Terminal(), want, status)
	}
	if (&State{ID: "1", Row: Row{Status: "completed"}}).Terminal() {
		t.Error("an audit that was not found is terminal")
	}
}

func TestSame(t *testing.T) {
	t.Parallel()
	found, gone := NewState(Row{ID: "1", Status: "running", UserID: p("alice"), UserEmail: p("a@b.c")}), &State{ID: "1"}
	unreadable := &State{ID: "1", Err: errors.New("one")}
	for name, tc := range map[string]struct {
		a, b *State
		want bool
	}{
		"the same row again":     {found, NewState(Row{ID: "1", Status: "running", UserID: p("alice"), UserEmail: p("a@b.c")}), true},
		"a new owner":            {found, NewState(Row{ID: "1", Status: "running", UserID: p("bob"), UserEmail: p("a@b.c")}), false},
		"no owner":               {found, NewState(Row{ID: "1", Status: "running", UserEmail: p("a@b.c")}), false},
		"progress":               {found, NewState(Row{ID: "1", Status: "running", Progress: 1, UserID: p("alice"), UserEmail: p("a@b.c")}), false},
		"gone":                   {found, gone, false},
		"unreadable again":       {unreadable, &State{ID: "1", Err: errors.New("another")}, true},
		"unreadable, then gone":  {unreadable, gone, false},
		"unreadable, then found": {unreadable, found, false},
		"gone again":             {gone, &State{ID: "1"}, true},
		"another address":        {found, NewState(Row{ID: "1", Status: "running", UserID: p("alice"), UserEmail: p("x@b.c")}), false},
		"an empty address":       {NewState(Row{ID: "1", UserEmail: p("")}), NewState(Row{ID: "1"}), false},
	} {
		if a, b := tc.a.Same(tc.b), tc.b.Same(tc.a); a != tc.want || b != tc.want {
			t.Errorf("%s: %v and %v, want %v", name, a, b, tc.want)
		}
	}
}

func TestEncodedIsComputedOnceForConcurrentCallers(t *testing.T) {
	t.Parallel()
	s := NewState(Row{ID: "1"})
	var calls atomic.Int64
	results := make([][]byte, 100)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			results[i] = s.Encoded(func(s *State) []byte { calls.Add(1); return append([]byte(nil), s.JSON...) })
		})
	}
	wg.Wait()
	for i := range results {
		if &results[i][0] != &results[0][0] || calls.Load() != 1 {
			t.Fatalf("two callers got different slices, or it was encoded %d times", calls.Load())
		}
	}
}

// For any row, the JSON is one line of valid UTF-8 with the contract's fields, in their order, and a decoder reads the same values back.
// It contains nothing about the owner, and the row's size bounds its size.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{"", "a", "\r\n", "\xff", "\u2028", "<b>", `"`, "\x00", "\\", `\u0000`, "failed", "\U0001f600", "\x7f"} {
		f.Add(seed, seed, seed, 1.5, 3)
		f.Add("failed", seed, seed, math.Inf(-1), -1)
	}
	f.Fuzz(func(t *testing.T, status, message, failure string, score float64, pages int) {
		owner := "owner-of-this-audit"
		text := Row{ID: "1", Status: status, Message: &message, GeoScore: &score, TotalPages: &pages, Error: &failure, UserID: &owner, UserEmail: &owner}.JSON()
		if !utf8.Valid(text) || bytes.ContainsFunc(text, func(r rune) bool { return r < 0x20 }) {
			t.Fatalf("not one line of text: %q", text)
		}
		if len(text) > 6*(len(status)+len(message)+len(failure))+400 {
			t.Errorf("%d bytes", len(text))
		}
		if bytes.Contains(text, []byte(owner)) && !strings.Contains(status+message+failure, owner) {
			t.Errorf("the owner is shown: %s", text)
		}
		names := []string{"audit_id", "status", "progress", "message", "geo_score", "total_pages", "error"}
		if status != "failed" {
			names = names[:6]
		}
		if math.IsNaN(score) || math.IsInf(score, 0) {
			names = slices.DeleteFunc(names, func(name string) bool { return name == "geo_score" })
		}
		if got := fields(t, text); !slices.Equal(got, names) {
			t.Errorf("%s: fields %q, want %q", text, got, names)
		}
		var back head
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if utf8.ValidString(message) && *back.Message != message || utf8.ValidString(status) && back.Status != status || *back.TotalPages != pages {
			t.Errorf("%q came back as %q", message, *back.Message)
		}
		if back.GeoScore != nil && *back.GeoScore != score {
			t.Errorf("%v came back as %v", score, *back.GeoScore)
		}
	})
}

// fields returns the names of a JSON object's members, in their order.
func fields(t *testing.T, text []byte) (names []string) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	for i := 0; ; i++ {
		token, err := d.Token()
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if token == json.Delim('}') {
			return names
		}
		if i%2 == 1 { // after the brace: name, value, name, value
			names = append(names, token.(string))
		}
	}
}

func BenchmarkNewState(b *testing.B) {
	a := Row{ID: "42", Status: "running", Progress: 50, Message: p("Running competitor analysis..."), UserID: p("alice")}
	b.ReportAllocs()
	for b.Loop() {
		NewState(a)
	}
}
