package server

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"auditstream/internal/server/web"

	"github.com/gorilla/mux"
	"github.com/rs/cors"
)

// routes builds the handler of the public address.
func (s *Handler) routes() http.Handler {
	r := mux.NewRouter().SkipClean(true).UseEncodedPath()
	s.handle(r, "/api/v1/sse/{feed}/{id}/progress", func(w http.ResponseWriter, r *http.Request) { s.serveStream(w, r, pathKey) }, http.MethodGet)
	s.handle(r, "/api/v1/sse/{feed}/progress", func(w http.ResponseWriter, r *http.Request) { s.serveStream(w, r, queryKeys) }, http.MethodGet)
	s.handle(r, "/api/v1/{feed}/{id}/status", s.status, http.MethodGet, http.MethodHead)
	s.handle(r, "/healthz", s.healthz, http.MethodGet, http.MethodHead)
	s.handle(r, "/readyz", s.readyz, http.MethodGet, http.MethodHead)
	s.handle(r, "/openapi.yaml", s.openapi, http.MethodGet, http.MethodHead)
	r.NotFoundHandler = s.notFound()
	if s.cfg.Page != nil {
		r.PathPrefix("/api/").Handler(r.NotFoundHandler)
		r.PathPrefix("/").HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.onRoute(w, r); s.cfg.Page.ServeHTTP(w, r) })
	}
	return s.traced(s.reportPanic(s.logAccess(closeAfter(s.withCORS(r)))))
}

// withCORS lets the pages of CORSOrigins use the API.
func (s *Handler) withCORS(r http.Handler) http.Handler {
	if len(s.cfg.CORSOrigins) == 0 {
		return r
	}
	// Around the router, not as its middleware: mux runs middleware only for routes that match, and a preflight's method
	// does not.
	return cors.New(cors.Options{
		AllowedOrigins: s.cfg.CORSOrigins,
		AllowedMethods: []string{http.MethodGet, http.MethodHead},
		// Any header: tracing in browsers adds its own (traceparent, baggage, sentry-trace and each vendor's), and to the page a refused
		// preflight looks as if we were offline. This grants nothing: requests only read, only the token's header gives access, a page can
		// set neither Cookie nor Origin, and no header is trusted about where a request comes from.
		AllowedHeaders: []string{"*"},
		ExposedHeaders: []string{"ETag", "Retry-After", "WWW-Authenticate", AnswerHeader},
		MaxAge:         600,
	}).Handler(r)
}

// reportPanic logs a panic with our logger, and cuts the connection, so that the client reconnects; net/http would do only the second. The
// logged stack has at most a pointer to the request, and none of its text.
func (s *Handler) reportPanic(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if cause != http.ErrAbortHandler {
				s.metrics.refused.WithLabelValues(refusedLabels[errInternal]).Inc()
				s.failSpan(r.Context())
				s.cfg.Logger.Error("a request caused a panic; its connection is cut", "panic", cause, "stack", string(debug.Stack()))
			}
			panic(http.ErrAbortHandler)
		}()
		next.ServeHTTP(w, r)
	})
}

func (s *Handler) notFound() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.writeError(w, r, errNoRoute) })
}

// closeAfter makes net/http close a connection over its address's limit after one answer, so that it counts only briefly, and one whose
// request has a body. Otherwise net/http would first wait for the body, which may come slower than the answer's deadline allows; and if
// client and proxy disagree about the body's length, it would take the difference for the next request.
func closeAfter(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isOverLimit(r) || r.ContentLength != 0 && r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// handle registers a route that answers other methods with 405 and the Allow header that RFC 9110 requires.
func (s *Handler) handle(r *mux.Router, path string, h http.HandlerFunc, methods ...string) {
	allow := strings.Join(methods, ", ")
	r.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		s.onRoute(w, r)
		if slices.Contains(methods, r.Method) {
			h(w, r)
			return
		}
		s.writeError(w, r, &apiError{status: http.StatusMethodNotAllowed, text: "Method not allowed: use " + allow, allow: allow})
	})
}

func (s *Handler) openapi(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	s.writeBody(w, r, http.StatusOK, web.OpenAPI)
}

// recoverPanic is reportPanic for a stream that may run outside its handler: the panic ends this stream and no other.
func (st *stream) recoverPanic() {
	cause := recover()
	if cause == nil {
		return
	}
	st.server.metrics.refused.WithLabelValues(refusedLabels[errInternal]).Inc()
	st.server.cfg.Logger.Error("a stream caused a panic; its connection is cut", "panic", cause, "stack", string(debug.Stack()))
	if st.sub == nil { // the stream had ended before
		st.events.out.close(endError, false)
		return
	}
	st.finish(endError, fmt.Errorf("panic: %v", cause))
}
