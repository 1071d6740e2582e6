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

// localOnly answers 421 to what [ForeignPage] says.
func (s *Server) localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ForeignPage(s.cfg.AdminAddr, r) {
			s.writeError(w, r, errForeignHost)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ForeignPage reports whether a request to the operators' address may be that of a web page which a browser on an operator's machine
// shows: one of another origin, or one whose name was made to point at this address (DNS rebinding), which the browser takes for our
// own. An IP address is no such name, nor is one without a dot, which is nobody's to publish. Where others reach the address, they
// reach its metrics without a browser: those are served under any name that a collector knows us by.
func ForeignPage(adminAddr string, r *http.Request) bool {
	if !sameOrigin(r) {
		return true
	}
	configured, _, _ := net.SplitHostPort(adminAddr)
	bound, err := netip.ParseAddr(configured)
	reached := configured == "" || err == nil && !bound.IsLoopback() || err != nil && !strings.EqualFold(configured, "localhost")
	if reached && !strings.HasPrefix(r.URL.Path, "/debug/") {
		return false
	}
	host := (&url.URL{Host: r.Host}).Hostname()
	_, err = netip.ParseAddr(host)
	return err != nil && strings.Contains(host, ".") && !strings.EqualFold(host, configured)
}

func (s *Server) profile(w http.ResponseWriter, r *http.Request) {
	name := mux.Vars(r)["profile"]
	if runtime.Lookup(name) == nil {
		s.writeError(w, r, errNoRoute)
		return
	}
	pprof.Handler(name).ServeHTTP(w, r)
}
