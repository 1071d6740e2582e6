package server

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"slices"
	"time"
)

// accessRecorder is a ResponseWriter that collects what the access log says about a request. There is none without an access log.
type accessRecorder struct {
	statusRecorder
	server *Handler
	start  time.Time
	record []slog.Attr // what is known from the request itself
	route  string
	logged bool
}

// logAccess logs one record for each request: when it ends, or, for a stream, when it begins, because "stream ended" is logged anyway.
// Without an access log it returns next. The record has no path, query or user agent: clients choose these freely, and some put tokens
// there.
func (s *Handler) logAccess(next http.Handler) http.Handler {
	if !s.cfg.AccessLog {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &accessRecorder{statusRecorder: statusRecorder{ResponseWriter: w}, server: s, start: time.Now(), route: "none", record: requestAttrs(r)}
		returned := false
		defer func() {
			if !returned { // a panic, after which net/http cuts the connection
				a.record = append(a.record, slog.Bool("cut", true))
			}
			a.log()
		}()
		next.ServeHTTP(a, r)
		returned = true
	})
}

// requestIDs matches the ids that proxies make: a UUID, or hexadecimal digits. No token matches.
var requestIDs = regexp.MustCompile(`^[0-9A-Fa-f-]{8,64}$`)

func requestAttrs(r *http.Request) []slog.Attr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	attrs := []slog.Attr{slog.String("method", methodOf(r, "other")), slog.String("remote", host), slog.String("proto", r.Proto)}
	if id := r.Header.Get("X-Request-Id"); requestIDs.MatchString(id) {
		attrs = append(attrs, slog.String("request_id", id))
	}
	return attrs
}

// methodOf returns a request's method, or other for a method that the client made up.
func methodOf(r *http.Request, other string) string {
	if slices.Contains([]string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}, r.Method) {
		return r.Method
	}
	return other
}

func (a *accessRecorder) log() {
	if a.logged {
		return
	}
	a.logged = true
	attrs := append(a.record, slog.String("route", a.route), slog.Int("status", a.status), slog.Int("bytes", a.bytes),
		slog.Duration("duration", time.Since(a.start)))
	a.server.cfg.Logger.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs...)
}

// onRoute records in the access log and the span, where there are any, which route a request took.
func (s *Handler) onRoute(w http.ResponseWriter, r *http.Request) {
	s.nameSpan(r)
	if a, ok := w.(*accessRecorder); ok {
		a.route = routeOf(r)
	}
}

func (a *accessRecorder) WriteHeader(status int) {
	a.statusRecorder.WriteHeader(status)
	if a.Header().Get("Content-Type") == "text/event-stream" {
		a.log()
	}
}

// Hijack logs the record now: a stream on a hijacked connection writes its status without WriteHeader.
func (a *accessRecorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err == nil {
		a.status = http.StatusOK
		a.log()
	}
	return conn, buffered, err
}
