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

// access notes, for the access log, what became of a request. It is there only when there is an access log.
type access struct {
	http.ResponseWriter
	server *Handler
	start  time.Time
	record []slog.Attr // what the request says
	route  string
	status int
	bytes  int
	logged bool
}

// logAccess writes one record about each request: at its end, or, when it becomes a stream, when that begins; "stream ended" is
// its other one. Without an access log it is next itself. The record has nothing that the client chose freely, because some put tokens anywhere: no path, no query, no
// user agent.
func (s *Handler) logAccess(next http.Handler) http.Handler {
	if !s.cfg.AccessLog {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &access{ResponseWriter: w, server: s, start: time.Now(), route: "none", record: requestAttrs(r)}
		returned := false
		defer func() {
			if !returned { // a panic: the connection is cut, whatever was written
				a.record = append(a.record, slog.Bool("cut", true))
			}
			a.log()
		}()
		next.ServeHTTP(a, r)
		returned = true
	})
}

// requestIDs are what proxies make: a UUID, or hexadecimal digits. A token does not look like one.
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

// methodOf is a request's method, or other when that is a word of the client's own.
func methodOf(r *http.Request, other string) string {
	if slices.Contains([]string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}, r.Method) {
		return r.Method
	}
	return other
}

func (a *access) log() {
	if a.logged {
		return
	}
	a.logged = true
	attrs := append(a.record, slog.String("route", a.route), slog.Int("status", a.status), slog.Int("bytes", a.bytes),
		slog.Duration("duration", time.Since(a.start)))
	a.server.cfg.Logger.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs...)
}

// onRoute tells the access log and the tracer, where there are any, which route a request took.
func (s *Handler) onRoute(w http.ResponseWriter, r *http.Request) {
	s.nameSpan(r)
	if a, ok := w.(*access); ok {
		a.route = routeOf(r)
	}
}

func (a *access) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
		if a.Header().Get("Content-Type") == "text/event-stream" {
			a.log()
		}
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *access) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	n, err := a.ResponseWriter.Write(p)
	a.bytes += n
	return n, err
}

// Unwrap lets an http.ResponseController flush and set deadlines.
func (a *access) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Hijack is for a stream, which writes its status itself.
func (a *access) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err == nil {
		a.status = http.StatusOK
		a.log()
	}
	return conn, buffered, err
}
