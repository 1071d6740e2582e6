package server

import (
	"net/http"
	"net/http/pprof"
	runtime "runtime/pprof"

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
	return withoutBody(r)
}

func (s *Server) profile(w http.ResponseWriter, r *http.Request) {
	name := mux.Vars(r)["profile"]
	if runtime.Lookup(name) == nil {
		s.writeError(w, r, errNoRoute)
		return
	}
	pprof.Handler(name).ServeHTTP(w, r)
}
