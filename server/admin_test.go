package server

import (
	"net/http/httptest"
	"testing"
)

// A page in an operator's browser, whose name was made to point at the operators' address, read heap dumps.
func TestProfilesAreNotForWebPages(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, hubFunc(unreachable), func(c *Config) { c.AdminAddr = "ops.example.com:9090" })
	for _, tc := range []struct {
		host, path, origin, site string
		want                     int
	}{
		{"127.0.0.1:9090", "/debug/pprof/heap", "", "", 200},
		{"[::1]:9090", "/debug/pprof/heap", "", "", 200},
		{"10.1.2.3", "/debug/pprof/heap", "", "", 200},
		{"localhost:9090", "/debug/pprof/heap", "", "", 200},
		{"auditstream:9090", "/debug/pprof/heap", "", "", 200},
		{"ops.example.com:9090", "/debug/pprof/heap", "", "", 200},
		{"127.0.0.1:9090", "/debug/pprof/heap", "http://127.0.0.1:9090", "same-origin", 200},
		{"evil.example:9090", "/debug/pprof/heap", "", "", 421},
		{"evil.example:9090", "/debug/pprof/", "", "", 421},
		{"evil.example.:9090", "/debug/pprof/heap", "", "", 421},
		{"127.0.0.1.evil.example", "/debug/pprof/heap", "", "", 421},
		{"127.0.0.1:9090", "/debug/pprof/heap", "http://evil.example", "", 421},
		{"127.0.0.1:9090", "/debug/pprof/profile", "", "cross-site", 421},
		{"auditstream.monitoring.svc:9090", "/metrics", "", "", 200},
	} {
		r := httptest.NewRequest("GET", tc.path, nil)
		r.Host = tc.host
		if tc.origin != "" {
			r.Header.Set("Origin", tc.origin)
		}
		if tc.site != "" {
			r.Header.Set("Sec-Fetch-Site", tc.site)
		}
		w := httptest.NewRecorder()
		s.adminRoutes().ServeHTTP(w, r)
		if w.Code != tc.want {
			t.Errorf("%+v: %d", tc, w.Code)
		}
	}
}
