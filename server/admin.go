package server

import (
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"net/url"
	runtime "runtime/pprof"
	"strings"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// adminRoutes builds the handler of the admin address, for operators alone. net/http/pprof's cmdline is left out: it shows
// flags, and --jwt-secret or --database-url may be among them.
func (s *Server) adminRoutes() http.Handler {
	r := mux.NewRouter().SkipClean(true)
	metrics := promhttp.HandlerFor(s.cfg.Metrics, promhttp.HandlerOpts{})
	s.handle(r, "/metrics", metrics.ServeHTTP, http.MethodGet, http.MethodHead)
	s.handle(r, "/debug/pprof/", pprof.Index, http.MethodGet, http.MethodHead)
	s.handle(r, "/debug/pprof/profile", pprof.Profile, http.MethodGet)
	s.handle(r, "/debug/pprof/symbol", pprof.Symbol, http.MethodGet, http.MethodPost) // go tool pprof posts addresses
	s.handle(r, "/debug/pprof/trace", pprof.Trace, http.MethodGet)
	s.handle(r, "/debug/pprof/{profile}", s.profile, http.MethodGet, http.MethodHead)
	r.NotFoundHandler = s.notFound()
	return withoutBody(s.localOnly(r))
}

// localOnly refuses profiles to a web page that a browser on an operator's machine shows: one of another origin, and one whose
// name was made to point at this address (DNS rebinding), which the browser takes for our own. A name without a dot is nobody's
// to publish. Metrics, which name nobody, are served under any name that a collector knows us by.
func (s *Server) localOnly(next http.Handler) http.Handler {
	configured, _, _ := net.SplitHostPort(s.cfg.AdminAddr)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := (&url.URL{Host: r.Host}).Hostname()
		_, err := netip.ParseAddr(host)
		known := err == nil || !strings.Contains(host, ".") || strings.EqualFold(host, configured)
		if strings.HasPrefix(r.URL.Path, "/debug/") && !(known && sameOrigin(r)) {
			s.writeError(w, r, errForeignHost)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) profile(w http.ResponseWriter, r *http.Request) {
	name := mux.Vars(r)["profile"]
	if runtime.Lookup(name) == nil {
		s.writeError(w, r, errNoRoute)
		return
	}
	pprof.Handler(name).ServeHTTP(w, r)
}
