package soak

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
)

// expect makes a request whose answer must have one of the statuses and show no audit, and reads it to the end.
func (a *audience) expect(ctx context.Context, t *testing.T, path, authorization string, statuses ...int) error {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	resp, err := a.get(ctx, t, path, authorization)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if strings.Contains(string(body), `"audit_id"`) {
		return fmt.Errorf("an audit was shown: %s", body)
	}
	if !slices.Contains(statuses, resp.StatusCode) {
		return fmt.Errorf("status %d, want one of %v: %s", resp.StatusCode, statuses, body)
	}
	return nil
}

func (a *audience) sendBadToken(ctx context.Context, t *testing.T) error {
	audit := a.someAudit(ctx)
	claims := jwt.MapClaims{"sub": audit.user, "exp": time.Now().Add(time.Hour).Unix()}
	foreign, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(strings.Repeat("another key ", 4)))
	if err != nil {
		return err
	}
	for _, authorization := range []string{"", "Bearer " + foreign, "Bearer nonsense",
		"Bearer " + harness.Token(t, jwt.MapClaims{"sub": audit.user, "exp": time.Now().Add(-time.Hour).Unix()})} {
		for _, path := range []string{harness.StreamPath(audit.id), harness.StatusPath(audit.id)} {
			if err := a.expect(ctx, t, path, authorization, http.StatusUnauthorized); err != nil {
				return err
			}
		}
	}
	if err := a.expect(ctx, t, harness.StreamPath(audit.id)+"?access_token="+foreign, "", http.StatusUnauthorized); err != nil {
		return err
	}
	return a.expect(ctx, t, harness.StreamPath(audit.id), "Bearer", http.StatusBadRequest)
}

func (a *audience) askForMissing(ctx context.Context, t *testing.T) error {
	missing := liveAudit{fmt.Sprint(1<<40 + rand.Int64N(1<<40)), "nobody"}
	return a.askInVain(ctx, t, missing.id, bearer(t, missing), 404)
}

func (a *audience) askForForeign(ctx context.Context, t *testing.T) error {
	audit := a.someAudit(ctx)
	return a.askInVain(ctx, t, audit.id, bearer(t, liveAudit{user: audit.user + "-not"}), 403, 404)
}

// askInVain wants one of the statuses, but while the database cannot be reached: then a stream is answered 200 with an error, a status
// request 503, and neither says whether there is such an audit.
func (a *audience) askInVain(ctx context.Context, t *testing.T, id, bearer string, statuses ...int) error {
	for range 3 {
		if err := a.expect(ctx, t, harness.StreamPath(id), bearer, append(statuses, 200)...); err != nil {
			return err
		}
		if err := a.expect(ctx, t, harness.StatusPath(id), bearer, append(statuses, 503)...); err != nil {
			return err
		}
	}
	return nil
}

func drain(resp *http.Response) error {
	defer resp.Body.Close()
	_, err := io.Copy(io.Discard, resp.Body)
	return err
}

// pollStatus asks again and again on one connection, as pages without streams do.
func (a *audience) pollStatus(ctx context.Context, t *testing.T) error {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	audit, etag := a.someAudit(ctx), ""
	for range 6 {
		r := harness.Request(t, ctx, a.server.URL+harness.StatusPath(audit.id), harness.Token(t, jwt.MapClaims{"sub": audit.user}))
		if etag != "" {
			r.Header.Set("If-None-Match", etag)
		}
		resp, err := transport.RoundTrip(r)
		if err != nil {
			return err
		}
		if err := drain(resp); err != nil {
			return err
		}
		switch {
		case resp.StatusCode == 200 && resp.Header.Get("ETag") != "":
			etag = resp.Header.Get("ETag")
		case resp.StatusCode == 304 && etag != "", resp.StatusCode == 404, resp.StatusCode == 503:
		default:
			return fmt.Errorf("status %d with ETag %q", resp.StatusCode, resp.Header.Get("ETag"))
		}
		sleep(ctx.Done(), rand.N(300*time.Millisecond))
	}
	return nil
}

// scrape asks for what operators and their machines ask for.
func (a *audience) scrape(ctx context.Context, t *testing.T) error {
	for _, url := range []string{a.server.Admin + "/metrics", a.server.URL + "/healthz", a.server.URL + "/readyz", a.server.URL + "/openapi.yaml"} {
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(harness.Request(t, ctx, url, ""))
		if err != nil {
			return err
		}
		if err := drain(resp); err != nil {
			return err
		}
		unready := resp.StatusCode == 503 && strings.HasSuffix(url, "/readyz")
		if resp.StatusCode != 200 && !unready {
			return fmt.Errorf("%s: status %d", url, resp.StatusCode)
		}
	}
	sleep(ctx.Done(), rand.N(time.Second))
	return nil
}
