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
	return closeAfter(s.localOnly(r))
}

// localOnly answers 421 to the requests that [ForeignPage] reports.
func (s *Server) localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ForeignPage(s.cfg.AdminAddr, r) {
			s.writeError(w, r, errForeignHost)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ForeignPage reports whether a request to the admin address may come from a foreign web page in a browser on an operator's machine. Such
// a page has another origin, or its host name was made to resolve to this address (DNS rebinding), so that the browser takes the address
// for the page's own. An IP address cannot be rebound, nor can a name without a dot, which nobody can publish. Where other machines reach
// the address, they can read its metrics without a browser anyway, so metrics are then served under any name.
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
