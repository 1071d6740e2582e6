package server

import (
	"net/http/httptest"
	"testing"
)

// A page in an operator's browser, whose host name resolved to the admin address, could read heap dumps and metrics.
func TestOperatorsAddressIsNotForWebPages(t *testing.T) {
	t.Parallel()
	const heap, metrics = "/debug/pprof/heap", "/metrics"
	for _, tc := range []struct {
		bound, host, path, origin, site string
		want                            int
	}{
		{"ops.example.com:9090", "127.0.0.1:9090", heap, "", "", 200},
		{"ops.example.com:9090", "[::1]:9090", heap, "", "", 200},
		{"ops.example.com:9090", "10.1.2.3", heap, "", "", 200},
		{"ops.example.com:9090", "localhost:9090", heap, "", "", 200},
		{"ops.example.com:9090", "auditstream:9090", heap, "", "", 200},
		{"ops.example.com:9090", "ops.example.com:9090", heap, "", "", 200},
		{"ops.example.com:9090", "127.0.0.1:9090", heap, "http://127.0.0.1:9090", "same-origin", 200},
		{"ops.example.com:9090", "evil.example:9090", heap, "", "", 421},
		{"ops.example.com:9090", "evil.example:9090", "/debug/pprof/", "", "", 421},
		{"ops.example.com:9090", "evil.example.:9090", heap, "", "", 421},
		{"ops.example.com:9090", "127.0.0.1.evil.example", heap, "", "", 421},
		{"ops.example.com:9090", "127.0.0.1:9090", heap, "http://evil.example", "", 421},
		{"ops.example.com:9090", "127.0.0.1:9090", "/debug/pprof/profile", "", "cross-site", 421},
		{"ops.example.com:9090", "evil.example:9090", metrics, "http://evil.example", "", 421},
		{":9090", "evil.example:9090", heap, "", "", 421},
		// Collectors on other machines may know us by any name.
		{":9090", "auditstream.monitoring.svc:9090", metrics, "", "", 200},
		{"0.0.0.0:9090", "auditstream.monitoring.svc.cluster.local:9090", metrics, "", "", 200},
		{"[::]:9090", "10.244.1.7:9090", metrics, "", "", 200},
		{"10.0.0.5:9090", "node-5.internal.example:9090", metrics, "", "", 200},
		{":9090", "10.0.0.5:9090", metrics, "", "cross-site", 421},
		{":9090", "10.0.0.5:9090", metrics, "", "same-site", 421},
		{":9090", "10.0.0.5:9090", metrics, "null", "", 421},
		// On a loopback address, a name with a dot can only be a page's.
		{"127.0.0.1:9090", "127.0.0.1:9090", metrics, "", "", 200},
		{"127.0.0.1:9090", "localhost:9090", metrics, "", "", 200},
		{"localhost:9090", "LOCALHOST:9090", metrics, "", "none", 200},
		{"[::1]:9090", "[::1]:9090", metrics, "", "", 200},
		{"127.0.0.1:9090", "evil.example:9090", metrics, "", "", 421},
		{"127.0.0.2:9090", "rebound.evil.example", metrics, "", "", 421},
		{"[::1]:9090", "evil.example:9090", metrics, "", "", 421},
		{"localhost:9090", "evil.example:9090", "/nowhere", "", "", 421},
		{"127.0.0.1:9090", "", metrics, "", "", 200}, // HTTP/1.0 without Host is no browser's
	} {
		s := newTestServer(t, hubFunc(unreachable), func(c *Config) { c.AdminAddr = tc.bound })
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
