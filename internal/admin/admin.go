// Package admin is what operators ask a process: its metrics, and profiles of it.
//
// It is apart from package server because net/http/pprof, where it is linked, adds its routes to the process's default ones, which are not
// ours to change in a program that embeds auditstream.
package admin

import (
	"net/http"
	"net/http/pprof"
	runtime "runtime/pprof"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Routes registers /metrics and /debug/pprof. The latter's cmdline is left out: it shows flags, and --jwt-secret or --database-url
// may be among them.
func Routes(metrics prometheus.Gatherer) func(handle func(path string, h http.HandlerFunc, methods ...string)) {
	return func(handle func(path string, h http.HandlerFunc, methods ...string)) {
		handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}).ServeHTTP, http.MethodGet, http.MethodHead)
		handle("/debug/pprof/", pprof.Index, http.MethodGet, http.MethodHead)
		handle("/debug/pprof/profile", pprof.Profile, http.MethodGet)
		handle("/debug/pprof/symbol", pprof.Symbol, http.MethodGet, http.MethodPost) // go tool pprof posts addresses
		handle("/debug/pprof/trace", pprof.Trace, http.MethodGet)
		handle("/debug/pprof/{profile}", profile, http.MethodGet, http.MethodHead)
	}
}

func profile(w http.ResponseWriter, r *http.Request) {
	name := mux.Vars(r)["profile"]
	if runtime.Lookup(name) == nil {
		h := w.Header() // as of each refusal of the server
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"error":"Not found"}`)) // whoever asked has gone
		return
	}
	pprof.Handler(name).ServeHTTP(w, r)
}
