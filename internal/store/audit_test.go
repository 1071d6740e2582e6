package store

import (
	"math"
	"testing"
)

func p[T any](v T) *T { return &v }

func TestJSONIsTheContracts(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		audit Audit
		want  string
	}{
		"all fields, in order": {
			Audit{ID: "123", Status: "failed", Progress: 40, Message: p("m"), GeoScore: p(78.5), TotalPages: p(7), Error: p("e")},
			`{"audit_id":123,"status":"failed","progress":40,"message":"m","geo_score":78.5,"total_pages":7,"error":"e"}`,
		},
		"NULL is left out":            {Audit{ID: "1", Status: "pending"}, `{"audit_id":1,"status":"pending","progress":0}`},
		"empty and zero are not NULL": {Audit{ID: "1", Status: "running", Message: p(""), GeoScore: p(0.0), TotalPages: p(0)}, `{"audit_id":1,"status":"running","progress":0,"message":"","geo_score":0,"total_pages":0}`},
		"an error only on failure":    {Audit{ID: "1", Status: "running", Error: p("old")}, `{"audit_id":1,"status":"running","progress":0}`},
		"no HTML escaping":            {Audit{ID: "1", Status: "running", Message: p(`<a href="x">&</a>`)}, `{"audit_id":1,"status":"running","progress":0,"message":"<a href=\"x\">&</a>"}`},
		"one line":                    {Audit{ID: "1", Status: "running", Message: p("a\r\nb\rc\u2028")}, `{"audit_id":1,"status":"running","progress":0,"message":"a\r\nb\rc\u2028"}`},
		"a score without a number":    {Audit{ID: "1", Status: "running", GeoScore: p(math.NaN()), Message: p("m")}, `{"audit_id":1,"status":"running","progress":0,"message":"m"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := string(tc.audit.JSON()); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// The fingerprint is a promise to clients of other versions and instances: it may not change by accident.
func TestFingerprintIsStable(t *testing.T) {
	t.Parallel()
	got := NewState(Audit{ID: "123", Status: "running", Progress: 25, Message: p("Analyzing pages...")}).Fingerprint
	if want := "65be5e25449ce208"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestOwnedBy(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		userID, userEmail *string
		viewer            Viewer
		want              bool
	}{
		"the user":                             {p("alice"), nil, Viewer{Subject: "alice"}, true},
		"another user":                         {p("alice"), nil, Viewer{Subject: "bob"}, false},
		"user ids have a case":                 {p("alice"), nil, Viewer{Subject: "Alice"}, false},
		"an address in any case":               {nil, p("Alice@Example.com"), Viewer{Subject: "x", Email: "aLICE@example.COM"}, true},
		"an address beyond ASCII":              {nil, p("É@example.com"), Viewer{Email: "é@example.com"}, true},
		"user_id decides where there is one":   {p("alice"), p("bob@example.com"), Viewer{Subject: "bob", Email: "bob@example.com"}, false},
		"a row of nobody":                      {nil, nil, Viewer{Subject: "alice", Email: "alice@example.com"}, false},
		"empty texts identify nobody":          {p(""), p(""), Viewer{}, false},
		"an empty user_id leaves the address":  {p(""), p("a@b.c"), Viewer{Subject: "x", Email: "a@b.c"}, true},
		"no address, no match":                 {nil, p("a@b.c"), Viewer{Subject: "x"}, false},
		"the Kelvin sign is not a k":           {nil, p("kim@b.c"), Viewer{Email: "\u212aim@b.c"}, false},
		"the long s is not an s":               {nil, p("sam@b.c"), Viewer{Email: "\u017fam@b.c"}, false},
		"the dotted capital I is not an i":     {nil, p("ida@b.c"), Viewer{Email: "\u0130da@b.c"}, false},
		"an empty sub is not an empty user_id": {p(""), nil, Viewer{Subject: ""}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := (Audit{UserID: tc.userID, UserEmail: tc.userEmail}).OwnedBy(tc.viewer); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// A row with user_id=' ' was shown to a token with sub=' '.
func TestBlankOwnerIsNobody(t *testing.T) {
	t.Parallel()
	for _, blank := range []string{"", " ", "\t", "\r\n", "\u00a0", "\u3000", "\u200b", "\ufeff", "\u202e", "\x00", "\u00ad \u2028"} {
		viewer := Viewer{Subject: blank, Email: blank}
		if owners := viewer.Owners(); owners != nil {
			t.Errorf("%q: a viewer who is %v, want nobody", blank, owners)
		}
		for _, audit := range []Audit{{UserID: &blank}, {UserEmail: &blank}, {UserID: &blank, UserEmail: &blank}, {}} {
			if audit.OwnedBy(viewer) || audit.OwnedBy(Viewer{Subject: "alice", Email: "a@b.c"}) || audit.Owner() != (Owner{}) {
				t.Errorf("%q: %+v is somebody's", blank, audit)
			}
		}
		// A blank user_id counts as none, so the address decides.
		if mailed := (Audit{UserID: &blank, UserEmail: p("a@b.c")}); !mailed.OwnedBy(Viewer{Subject: "x", Email: "A@b.c"}) || mailed.OwnedBy(viewer) {
			t.Errorf("%q: the address does not decide", blank)
		}
	}
	for _, seen := range []string{" alice", "0", "é", "-", "\u200balice"} { // compared byte for byte, blanks included
		if !(Audit{UserID: &seen}).OwnedBy(Viewer{Subject: seen}) || (Audit{UserID: &seen}).OwnedBy(Viewer{Subject: seen + " "}) {
			t.Errorf("%q is not its owner's alone", seen)
		}
	}
}

func TestSameSeesOwnersAndDeletion(t *testing.T) {
	t.Parallel()
	a := NewState(Audit{ID: "1", Status: "running", UserID: p("alice")})
	for name, tc := range map[string]struct {
		other *State
		want  bool
	}{
		"the same row again": {NewState(Audit{ID: "1", Status: "running", UserID: p("alice")}), true},
		"a new owner":        {NewState(Audit{ID: "1", Status: "running", UserID: p("bob")}), false},
		"no owner":           {NewState(Audit{ID: "1", Status: "running"}), false},
		"progress":           {NewState(Audit{ID: "1", Status: "running", Progress: 1, UserID: p("alice")}), false},
		"gone":               {&State{ID: "1"}, false},
	} {
		if got := a.Same(tc.other); got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

func TestEncodedIsComputedOnce(t *testing.T) {
	t.Parallel()
	calls := 0
	s := NewState(Audit{ID: "1"})
	for range 3 {
		s.Encoded(func(*State) []byte { calls++; return nil })
	}
	if calls != 1 {
		t.Errorf("encoded %d times, want once", calls)
	}
}
