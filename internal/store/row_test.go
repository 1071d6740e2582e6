package store

import (
	"math"
	"testing"

	"auditstream/internal/testkit"
)

func p[T any](v T) *T { return &v }

func TestJSONIsTheContracts(t *testing.T) {
	t.Parallel()
	type test struct {
		row  Row
		want string
	}
	testkit.Each(t, map[string]test{
		"all fields, in order": {
			Row{ID: "123", Status: "failed", Progress: 40, Message: p("m"), GeoScore: p(78.5), TotalPages: p(7), Error: p("e")},
			`{"audit_id":123,"status":"failed","progress":40,"message":"m","geo_score":78.5,"total_pages":7,"error":"e"}`,
		},
		"NULL is left out":            {Row{ID: "1", Status: "pending"}, `{"audit_id":1,"status":"pending","progress":0}`},
		"empty and zero are not NULL": {Row{ID: "1", Status: "running", Message: p(""), GeoScore: p(0.0), TotalPages: p(0)}, `{"audit_id":1,"status":"running","progress":0,"message":"","geo_score":0,"total_pages":0}`},
		"an error only on failure":    {Row{ID: "1", Status: "running", Error: p("old")}, `{"audit_id":1,"status":"running","progress":0}`},
		"no HTML escaping":            {Row{ID: "1", Status: "running", Message: p(`<a href="x">&</a>`)}, `{"audit_id":1,"status":"running","progress":0,"message":"<a href=\"x\">&</a>"}`},
		"one line":                    {Row{ID: "1", Status: "running", Message: p("a\r\nb\rc\u2028")}, `{"audit_id":1,"status":"running","progress":0,"message":"a\r\nb\rc\u2028"}`},
		"a score without a number":    {Row{ID: "1", Status: "running", GeoScore: p(math.NaN()), Message: p("m")}, `{"audit_id":1,"status":"running","progress":0,"message":"m"}`},
		"an infinite score":           {Row{ID: "1", Status: "failed", GeoScore: p(math.Inf(1)), Error: p("e")}, `{"audit_id":1,"status":"failed","progress":0,"error":"e"}`},
		"a score below all":           {Row{ID: "1", Status: "failed", GeoScore: p(math.Inf(-1)), Error: p("e")}, `{"audit_id":1,"status":"failed","progress":0,"error":"e"}`},
	}, func(t *testing.T, _ string, tc test) {
		testkit.Equal(t, string(tc.row.JSON()), tc.want, "JSON")
	})
}

func TestOwnedBy(t *testing.T) {
	t.Parallel()
	type test struct {
		userID, userEmail *string
		viewer            Viewer
		want              bool
	}
	testkit.Each(t, map[string]test{
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
	}, func(t *testing.T, _ string, tc test) {
		testkit.Equal(t, (Row{UserID: tc.userID, UserEmail: tc.userEmail}).OwnedBy(tc.viewer), tc.want, "owned")
	})
}

// A row with user_id=' ' was shown to a token with sub=' '.
func TestBlankOwnerIsNobody(t *testing.T) {
	t.Parallel()
	for _, blank := range []string{"", " ", "\t", "\r\n", "\u00a0", "\u3000", "\u200b", "\ufeff", "\u202e", "\x00", "\u00ad \u2028"} {
		viewer := Viewer{Subject: blank, Email: blank}
		if owners := viewer.Owners(); owners != nil {
			t.Errorf("%q: a viewer who is %v, want nobody", blank, owners)
		}
		for _, audit := range []Row{{UserID: &blank}, {UserEmail: &blank}, {UserID: &blank, UserEmail: &blank}, {}} {
			if audit.OwnedBy(viewer) || audit.OwnedBy(Viewer{Subject: "alice", Email: "a@b.c"}) || audit.Owner() != (Owner{}) {
				t.Errorf("%q: %+v is somebody's", blank, audit)
			}
		}
		// A blank user_id counts as none, so the address decides.
		if mailed := (Row{UserID: &blank, UserEmail: p("a@b.c")}); !mailed.OwnedBy(Viewer{Subject: "x", Email: "A@b.c"}) || mailed.OwnedBy(viewer) {
			t.Errorf("%q: the address does not decide", blank)
		}
	}
	for _, seen := range []string{" alice", "0", "é", "-", "\u200balice"} { // compared byte for byte, blanks included
		if !(Row{UserID: &seen}).OwnedBy(Viewer{Subject: seen}) || (Row{UserID: &seen}).OwnedBy(Viewer{Subject: seen + " "}) {
			t.Errorf("%q is not its owner's alone", seen)
		}
	}
}
