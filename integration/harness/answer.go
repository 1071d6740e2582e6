package harness

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// Answer is a whole answer that is no stream.
type Answer struct {
	Status int
	Header http.Header
	Body   string
	to     string // the request, in messages
}

// Ask makes a request with headers given as pairs; an Authorization header is one of them.
func (i *Instance) Ask(t testing.TB, method, path string, headers ...string) Answer {
	t.Helper()
	r := Request(t, t.Context(), i.URL+path, "", headers...)
	r.Method = method
	resp, err := http.DefaultClient.Do(r)
	NoError(t, err)
	return Answer{resp.StatusCode, resp.Header, ReadAll(t, resp.Body), method + " " + path}
}

// AskAs makes a GET request with a token.
func (i *Instance) AskAs(t testing.TB, token, path string, headers ...string) Answer {
	t.Helper()
	return i.Ask(t, http.MethodGet, path, append([]string{"Authorization", "Bearer " + token}, headers...)...)
}

// WaitStatus waits until a GET request has an answer of the status. An empty token is none.
func (i *Instance) WaitStatus(t testing.TB, token, path string, want int) {
	t.Helper()
	i.wait(t, token, path, want, func(string) bool { return true }, "anything")
}

// WaitAnswer waits until a GET request without a token has an answer of the status and the body.
func (i *Instance) WaitAnswer(t testing.TB, path string, status int, want string) {
	t.Helper()
	i.wait(t, "", path, status, func(body string) bool { return body == want }, want)
}

func (i *Instance) wait(t testing.TB, token, path string, status int, accept func(body string) bool, want string) {
	t.Helper()
	Eventually(t, func() error {
		resp, err := http.DefaultClient.Do(Request(t, t.Context(), i.URL+path, token))
		if err != nil {
			return err
		}
		if body := ReadAll(t, resp.Body); resp.StatusCode != status || !accept(body) {
			return fmt.Errorf("GET %s: %d %s, want %d %s", path, resp.StatusCode, body, status, want)
		}
		return nil
	})
}

// WantStatus compares the status alone.
func (a Answer) WantStatus(t testing.TB, want int) {
	t.Helper()
	if a.Status != want {
		t.Errorf("%s: %d %s, want %d", a.to, a.Status, a.Body, want)
	}
}

// WantRefusal compares an answer with the literal status, body and WWW-Authenticate of a refusal.
func (a Answer) WantRefusal(t testing.TB, status int, body, challenge string) {
	t.Helper()
	a.WantOpen(t, status, body)
	WantHeaders(t, a.Header, map[string]string{"WWW-Authenticate": challenge, "Content-Length": fmt.Sprint(len(body))})
}

// What refusals say: bodies, and a WWW-Authenticate.
const (
	InvalidToken     = `{"error":"Invalid authentication token"}`
	CrossUser        = `{"error":"Cross-user access denied"}`
	InvalidChallenge = `Bearer realm="auditstream", error="invalid_token", error_description="The access token is malformed, expired or not meant for this service"`
)

// WantOpen compares an answer that needs no token.
func (a Answer) WantOpen(t testing.TB, status int, body string) {
	t.Helper()
	if a.Status != status || a.Body != body {
		t.Errorf("%s: %d %s, want %d %s", a.to, a.Status, a.Body, status, body)
	}
	WantHeaders(t, a.Header, map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})
}

// Request makes a GET request with a token, if it is not empty, and headers given as pairs.
func Request(t testing.TB, ctx context.Context, url, token string, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	NoError(t, err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for k := 0; k+1 < len(headers); k += 2 {
		r.Header.Add(headers[k], headers[k+1])
	}
	return r
}

// Get fetches a path of the API without a token.
func (i *Instance) Get(t testing.TB, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get(i.URL + path)
	NoError(t, err)
	return resp.StatusCode, ReadAll(t, resp.Body)
}

// ReadAll reads a body to its end and closes it.
func ReadAll(t testing.TB, body io.ReadCloser) string {
	t.Helper()
	defer body.Close()
	b, err := io.ReadAll(body)
	NoError(t, err)
	return string(b)
}

// CORSHeaders are the headers of an answer that let pages of other origins read it.
func (a Answer) CORSHeaders() map[string]string {
	cors := map[string]string{}
	for name, values := range a.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			cors[name] = strings.Join(values, " | ")
		}
	}
	return cors
}
