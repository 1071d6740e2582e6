package server

import (
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/gorilla/mux"
)

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	good := testConfig(hubFunc(unreachable))
	good.Registerer, good.CORSOrigins = nil, []string{"*", "http://localhost:3000", "https://app.example", "capacitor://localhost"}
	if _, err := New(t.Context(), good); err != nil {
		t.Errorf("the good configuration: %v", err)
	}
	for name, tc := range map[string]struct {
		spoil func(*Config)
		want  string
	}{
		"no hub":                {func(c *Config) { c.Hub = nil }, "Hub"},
		"no ping":               {func(c *Config) { c.Ping = nil }, "Ping"},
		"no listening":          {func(c *Config) { c.Listening = nil }, "Listening"},
		"negative duration":     {func(c *Config) { c.MaxDuration = -time.Second }, "SSE_MAX_DURATION: -1s"},
		"negative heartbeat":    {func(c *Config) { c.Heartbeat = -time.Second }, "SSE_HEARTBEAT_SECONDS: -1s"},
		"negative retry":        {func(c *Config) { c.Retry = -time.Second }, "SSE_RETRY_MS: -1s"},
		"negative limit":        {func(c *Config) { c.MaxStreams = -1 }, "SSE_MAX_STREAMS"},
		"negative limit a user": {func(c *Config) { c.MaxStreamsPerUser = -1 }, "SSE_MAX_STREAMS_PER_USER"},
		"a key alone":           {func(c *Config) { c.KeyFile = "key.pem" }, "TLS_CERT_FILE"},
		"a second origin":       {func(c *Config) { c.CORSOrigins = []string{"*", "https://app.example/"} }, `CORS_ALLOWED_ORIGINS: "https://app.example/"`},
		"an address of no port": {func(c *Config) { c.Addr = "localhost:" }, `HTTP_ADDR: invalid address "localhost:"; give HOST:PORT or :PORT`},
		"keys at no host":       {func(c *Config) { c.Auth.JWKSURL = "https://:443/keys" }, `JWT_JWKS_URL: invalid URL "https://:443/keys"`},
		"keys at no port":       {func(c *Config) { c.Auth.JWKSURL = "https://id.example:99999/keys" }, "JWT_JWKS_URL"},
		"no way to verify":      {func(c *Config) { c.Auth = AuthConfig{} }, "JWT_SECRET"},
	} {
		cfg := testConfig(hubFunc(unreachable))
		tc.spoil(&cfg)
		if _, err := New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one about %s", name, err, tc.want)
		}
	}
}

// If the URL was misspelled, the error showed its password.
func TestPasswordInTheURLOfTheKeysIsNotShown(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"https://user:hush-password@id.example#x", "user:hush-password@id.example/keys", "https//user:hush-password@id.example/keys",
		"http://user:hush-password@id.example/keys", "https://user:hush-password@id.example:port/keys", "https:user:hush-password@id.example",
	} {
		err := AuthConfig{JWKSURL: address, Issuer: "i", Audience: "a"}.Validate()
		if err == nil || strings.Contains(err.Error(), "hush") || !strings.HasPrefix(err.Error(), "JWT_JWKS_URL") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// A certificate that does not exist was an error only when the server ran, and did not name the variable.
func TestBadCertificateIsRefusedAtStart(t *testing.T) {
	t.Parallel()
	garbage := filepath.Join(t.TempDir(), "cert.pem")
	testkit.NoError(t, os.WriteFile(garbage, []byte("no PEM"), 0o600))
	for _, file := range []string{garbage, garbage + ".missing"} {
		cfg := testConfig(hubFunc(unreachable))
		cfg.CertFile, cfg.KeyFile = file, file
		_, err := New(t.Context(), cfg)
		if err == nil || !strings.HasPrefix(err.Error(), "TLS_CERT_FILE") {
			t.Errorf("%s: error %v, want one that names TLS_CERT_FILE", filepath.Base(file), err)
		}
	}
}

// idInPath returns the audit_id that a path is parsed to.
func idInPath(t *testing.T, value string) (store.Key, error) {
	ids, err := pathKey(mux.SetURLVars(get(t, "/"), map[string]string{"id": url.PathEscape(value)}), store.Audits)
	return slices.Concat(ids, []store.Key{""})[0], err
}

// The id in the path is a number that PostgreSQL would print in the same way, or 400 in one line that does not repeat it.
func FuzzAuditID(f *testing.F) {
	for _, seed := range []string{
		"1", "42", "9223372036854775807", "9223372036854775808", "0", "-1", "+1", "01", "1.0", "1e3", "0x1", "1_0", " 1", "٣", "abc", "", "1\x00", "1\n",
		"1;drop table audits", strings.Repeat("9", 4096), "../../1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		id, err := idInPath(t, value)
		if err == nil && (id.Int() < 1 || strconv.FormatInt(id.Int(), 10) != value || string(id) != value) {
			t.Errorf("%q is taken for %q", value, id)
		}
		if n, ok := new(big.Int).SetString(value, 10); ok && n.Sign() > 0 && n.IsInt64() && n.String() == value && err != nil {
			t.Errorf("pathKey(%q): %v", value, err)
		}
		if err != nil && answerTo(err) != errInvalidKey {
			t.Errorf("pathKey(%q): %v, want errInvalidKey", value, err)
		}
	})
}

// Whatever a client sends as the last event's id, it can only say what was seen: the answer is 204 for the very id of the
// terminal state, and otherwise that state, in bytes that have nothing of what was sent.
func FuzzLastEventID(f *testing.F) {
	state := ended("completed")
	for _, seed := range []string{"", "9f1c0a9e2b7d4c35", state.Fingerprint, strings.ToUpper(state.Fingerprint), "\x00", "a\nb", "é", "%00", "&lastEventId=x", ";x", strings.Repeat("a", 1<<16)} {
		f.Add(seed, "last_event_id="+seed)
		f.Add("", "lastEventId="+seed)
	}
	f.Fuzz(func(t *testing.T, header, query string) {
		r := authorized(t, streamPath)
		r.Header["Last-Event-Id"], r.URL.RawQuery = []string{header}, query
		got := lastEventID(r)
		if header != "" && got != header {
			t.Errorf("got %q, want the header's %q", got, header)
		}
		if q := r.URL.Query(); header == "" && got != "" && got != q.Get("last_event_id") && got != q.Get("lastEventId") {
			t.Errorf("got %q of the query %q", got, query)
		}
		sub, _ := one(state)
		c := serve(newTestServer(t, sub, nil), r)
		switch {
		case c.status == http.StatusUnauthorized && tokenInURL(r.URL) && c.String() == `{"error":"Invalid authentication token"}`:
		case c.status == http.StatusNoContent && got == state.Fingerprint && c.String() == "":
		case c.status == http.StatusOK && got != state.Fingerprint && c.String() == begun+string(encodeEvent(state)):
		default:
			t.Errorf("%q, %q: %d %q", header, query, c.status, c.String())
		}
	})
}

// An accepted origin is a scheme, a host and perhaps a port, without anything that a browser does not send or
// that would end the header.
func FuzzOrigin(f *testing.F) {
	for _, seed := range []string{"*", "null", "https://app.example", "http://localhost:3000", "https://app.example/", "https://a@b", "//x", "https://:80", "https://[::1]:80", "https://a\r\nb", "https://a b", "HTTPS://A", "https://a?", "https://a#", "https://*.example"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, origin string) {
		err := checkOrigin(origin)
		if err != nil {
			if !strings.Contains(err.Error(), strconv.Quote(origin)) || !strings.HasPrefix(err.Error(), "CORS_ALLOWED_ORIGINS: ") || strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("%q: %v", origin, err)
			}
			return
		}
		if origin == "*" {
			return
		}
		u, err := url.Parse(origin)
		if err != nil || u.User != nil || u.Path+u.RawQuery+u.Fragment != "" || u.Hostname() == "" || !strings.Contains(origin, "://") || strings.ContainsAny(origin, "\r\n\x00 ?#@,") {
			t.Errorf("%q is no origin", origin)
		}
	})
}
