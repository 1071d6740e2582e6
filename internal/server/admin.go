package server

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/gorilla/mux"
)

// adminRoutes builds the handler of the admin address, for operators alone.
func (s *Server) adminRoutes() http.Handler {
	r := mux.NewRouter().SkipClean(true)
	if s.cfg.Admin != nil {
		s.cfg.Admin(func(path string, h http.HandlerFunc, methods ...string) { s.handle(r, path, h, methods...) })
	}
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
