// Package admin serves a process's metrics and profiles to operators.
//
// The rule that keeps it right: no package that other programs link imports it. net/http/pprof adds its routes to http.DefaultServeMux as
// soon as it is linked, and in a program that embeds auditstream that mux is not ours to change. So it is apart from package server, which
// serves its [Routes] on the admin address, and of the programs cmd/auditstream alone imports it.
package admin

import (
	"net/http"
	"net/http/pprof"
	runtime "runtime/pprof"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Routes returns a function that registers /metrics and /debug/pprof. It leaves out /debug/pprof/cmdline, which shows flags: --jwt-secret
// and --database-url may be among them.
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
		h := w.Header() // the headers of each refusal of package server
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"error":"Not found"}`)) // fails if the client has disconnected
		return
	}
	pprof.Handler(name).ServeHTTP(w, r)
}
