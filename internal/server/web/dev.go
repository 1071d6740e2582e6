package web

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Dev is what the page of a development server needs to know.
type Dev struct {
	// Audits are the newest audits, by id.
	Audits []DevAudit `json:"audits"`
	// Token authenticates User, who owns the audits.
	Token string `json:"token"`
	User  string `json:"user"`
	// ByHand is the audit that only the developer changes; 0: there is none.
	ByHand int64 `json:"by_hand"`
	// SQL is a shell command that changes the audit ByHand.
	SQL string `json:"sql"`
	// Feeds are the feeds other than audits.
	Feeds []string `json:"feeds"`
	// Actions says whether the server has actions.
	Actions bool `json:"actions"`
}

// DevAudit has what the API does not say about an audit.
type DevAudit struct {
	ID      int64      `json:"id"`
	Site    string     `json:"site"`
	Started *time.Time `json:"started,omitempty"`
	Ended   *time.Time `json:"ended,omitempty"`
}

// Action does what a button of the page says. Its result is sent as JSON; its error is a [Refusal], or the database's.
type Action func(ctx context.Context, query url.Values) (any, error)

// Refusal is an error whose text the page shows.
type Refusal string

func (r Refusal) Error() string { return string(r) }

// actionTimeout is less than the answer's write deadline, because a button of the page may have paused the database.
const actionTimeout = 3 * time.Second

// devRoutes adds the GET routes of a development server, and returns its POST routes.
func (o Options) devRoutes(routes map[string]http.HandlerFunc) (actions map[string]http.HandlerFunc) {
	if o.Dev == nil {
		return nil
	}
	routes["/dev.json"] = ownPage(func(w http.ResponseWriter, _ *http.Request) {
		dev := o.Dev()
		if dev.Audits == nil {
			dev.Audits = []DevAudit{}
		}
		if dev.Feeds == nil {
			dev.Feeds = []string{}
		}
		dev.Actions = len(o.Actions) > 0
		writeJSON(w, http.StatusOK, dev)
	})
	if o.Pulse != nil {
		routes["/dev/pulse"] = ownPage(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), actionTimeout)
			defer cancel()
			writeJSON(w, http.StatusOK, o.Pulse(ctx))
		})
	}
	actions = map[string]http.HandlerFunc{}
	for name, action := range o.Actions {
		actions["/dev/"+name] = ownPage(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), actionTimeout)
			defer cancel()
			result, err := action(ctx, r.URL.Query())
			var refusal Refusal
			switch {
			case err == nil:
				writeJSON(w, http.StatusOK, result)
			case errors.As(err, &refusal):
				writeError(w, http.StatusConflict, refusal.Error())
			default:
				writeError(w, http.StatusServiceUnavailable, "The database does not answer")
			}
		})
	}
	return actions
}

// ownPage lets only this server's own page through, because these routes give out a token or break something. It refuses the pages of other
// sites in the developer's browser, also those whose host name was made to resolve to a loopback address (DNS rebinding).
func ownPage(next http.HandlerFunc) http.HandlerFunc {
	origins := http.NewCrossOriginProtection()
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		site := r.Header.Get("Sec-Fetch-Site")
		foreign := site != "same-origin" && site != "none" && site != ""
		if foreign || origins.Check(r) != nil {
			writeError(w, http.StatusForbidden, "Only for the page of this server")
			return
		}
		if !loopbackHost(r.Host) {
			writeError(w, http.StatusForbidden, "Only under a loopback name: open the page as localhost or 127.0.0.1")
			return
		}
		next(w, r)
	}
}

// loopbackHost reports whether a Host header names this machine.
func loopbackHost(host string) bool {
	u, err := url.Parse("http://" + host)
	if err != nil || u.Host != host {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return strings.EqualFold(u.Hostname(), "localhost")
	}
	return ip.Unmap().IsLoopback()
}
