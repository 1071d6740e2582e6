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

// Dev is what the page needs to know where it shows a development server.
type Dev struct {
	// Audits are the newest ones, in the order of their ids.
	Audits []DevAudit `json:"audits"`
	// Token authenticates their owner, User.
	Token string `json:"token"`
	User  string `json:"user"`
	// ByHand is the audit that nobody but the developer changes; 0: there is none.
	ByHand int64 `json:"by_hand"`
	// SQL is the shell command that changes it.
	SQL string `json:"sql"`
	// Feeds are those beside audits.
	Feeds []string `json:"feeds"`
	// Actions says whether there are any.
	Actions bool `json:"actions"`
}

// DevAudit is what the API does not tell about an audit.
type DevAudit struct {
	ID      int64      `json:"id"`
	Site    string     `json:"site"`
	Started *time.Time `json:"started,omitempty"`
	Ended   *time.Time `json:"ended,omitempty"`
}

// Action does what a button of the page says. What it returns is sent as JSON; an error is a [Refusal], or the database's.
type Action func(ctx context.Context, query url.Values) (any, error)

// Refusal is an error whose text is for the person at the page.
type Refusal string

func (r Refusal) Error() string { return string(r) }

// actionTimeout is less than the answer's deadline: the database may be standing still, by a button of the page.
const actionTimeout = 3 * time.Second

// devRoutes adds the routes of a development server that are read, and returns those that do something.
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

// ownPage answers the page of this server alone, because what is behind it hands out a token or breaks something: not
// another site's page that the developer has open, nor one that had its host name resolve to a loopback address (DNS
// rebinding).
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
