package auditstream_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"auditstream"
	"auditstream/internal/pgtest"
	"auditstream/internal/testkit"

	"github.com/gorilla/mux"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// A viewer with a session of the embedding program sees a row's change through that program's router, under any prefix.
func TestUpdateReachesTheEmbeddedStream(t *testing.T) {
	t.Parallel()
	pool := database(t)
	as, _ := run(t, pool, auditstream.Options{})
	router := mux.NewRouter()
	router.PathPrefix("/api/v1/").Handler(as)
	router.PathPrefix("/live/").Handler(http.StripPrefix("/live", as))
	url := serve(t, router)
	streams := []*stream{follow(t, url+"/api/v1/sse/audits/42/progress", "alice"), follow(t, url+"/live/api/v1/sse/audits/42/progress", "alice")}
	for _, s := range streams {
		s.until(t, `"progress":25`)
	}
	execute(t, pool, `update audits set progress = 55 where id = 42`)
	for _, s := range streams {
		s.until(t, `"progress":55`)
	}
	execute(t, pool, `update audits set status = 'completed' where id = 42`)
	for _, s := range streams {
		s.until(t, `"status":"completed"`)
	}
}

func TestViewerDecidesWhoSees(t *testing.T) {
	t.Parallel()
	log := new(testkit.Log)
	as, _ := run(t, database(t), auditstream.Options{Logger: log.Logger(), Viewer: func(r *http.Request) (auditstream.Viewer, error) {
		if r.Header.Get("X-User") == "down" {
			return auditstream.Viewer{}, errors.New("the session store is away: a secret")
		}
		return asHeader(r)
	}})
	url := serve(t, as)
	for user, want := range map[string]int{"alice": 200, "mallory": 403, "": 401, "down": 200} {
		s := follow(t, url+"/api/v1/sse/audits/42/progress", user)
		if s.status != want {
			t.Errorf("%q: status %d, want %d", user, s.status, want)
		}
		if user == "down" {
			s.until(t, "retry: ")
			s.until(t, `data: {"error":"Internal server error"}`)
		}
	}
	if !log.Has("the session store is away") {
		t.Errorf("the log does not say why nobody was let in:\n%s", log)
	}
}

// Each error names the field of Options, and not the command's variable.
func TestNewNamesTheOption(t *testing.T) {
	t.Parallel()
	pool := open(t, pgtest.New(t))
	for want, change := range map[string]func(*auditstream.Options){
		"Options.Heartbeat: -1s is negative":                         func(o *auditstream.Options) { o.Heartbeat = -time.Second },
		"Options.MaxDuration: -1s":                                   func(o *auditstream.Options) { o.MaxDuration = -time.Second },
		"Options.Retry: -1s":                                         func(o *auditstream.Options) { o.Retry = -time.Second },
		"Options.PollInterval: -1s":                                  func(o *auditstream.Options) { o.PollInterval = -time.Second },
		"Options.MaxRowBytes":                                        func(o *auditstream.Options) { o.MaxRowBytes = -1 },
		`Options.CORSOrigins: "app.example.com" is no origin`:        func(o *auditstream.Options) { o.CORSOrigins = []string{"app.example.com"} },
		"set Viewer":                                                 func(o *auditstream.Options) { o.Viewer = nil },
		"Options.Viewer and Options.Auth are both set":               func(o *auditstream.Options) { o.Auth.Secret = "x" },
		"Options.AuthCookie is set":                                  func(o *auditstream.Options) { o.AuthCookie = "session" },
		"Options.Auth.Secret: the key has 5 bytes":                   func(o *auditstream.Options) { o.Viewer, o.Auth.Secret = nil, "short" },
		"Options.Auth.Issuer and Options.Auth.Audience are required": func(o *auditstream.Options) { o.Viewer, o.Auth.JWKSURL = nil, "https://issuer.example/keys" },
		"Options.Auth.JWKSURL: invalid URL":                          func(o *auditstream.Options) { o.Viewer, o.Auth.JWKSURL = nil, "issuer" },
		`Options.AuthCookie: "a b" cannot be a cookie's name`: func(o *auditstream.Options) {
			o.Viewer, o.Auth.Secret, o.AuthCookie = nil, strings.Repeat("k3y-", 10), "a b"
		},
	} {
		o := auditstream.Options{Viewer: asHeader}
		change(&o)
		_, err := auditstream.New(pool, o)
		_, ok := errors.AsType[auditstream.UsageError](err)
		if !ok || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "JWT_") || strings.Contains(err.Error(), "SSE_") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := auditstream.New(nil, auditstream.Options{Viewer: asHeader}); err == nil {
		t.Error("a nil pool is taken")
	}
}

// When Run's context is done, streams get a time to reconnect after and end, and Run returns.
func TestRunEndsItsStreams(t *testing.T) {
	t.Parallel()
	as, stop := run(t, database(t), auditstream.Options{})
	url := serve(t, as)
	s := follow(t, url+"/api/v1/sse/audits/42/progress", "alice")
	s.until(t, `"progress":25`)
	stop()
	s.until(t, "retry: ")
	for s.lines.Scan() {
	}
	if err := s.lines.Err(); err != nil {
		t.Errorf("the stream was cut: %v", err)
	}
	if s := follow(t, url+"/api/v1/audits/42/status", "alice"); s.status != 503 {
		t.Errorf("afterwards: status %d, want 503", s.status)
	}
	s = follow(t, url+"/api/v1/sse/audits/42/progress", "alice")
	s.until(t, "retry: ")
	for _, err := range as.Watch(within(t), auditstream.Key{ID: "42"}) {
		if !errors.Is(err, auditstream.ErrStopped) {
			t.Errorf("Watch afterwards: %v, want ErrStopped", err)
		}
	}
}

// Two services cannot share a Registerer, and a service that has ended leaves no metrics there.
func TestMetricsGoToTheRegisterer(t *testing.T) {
	t.Parallel()
	pool, registry := database(t), prometheus.NewRegistry()
	o := auditstream.Options{Viewer: asHeader, Registerer: registry}
	as, stop := run(t, pool, o)
	follow(t, serve(t, as)+"/api/v1/sse/audits/42/progress", "alice").until(t, `"progress":25`)
	families := gathered(t, registry)
	for _, name := range []string{"auditstream_streams_open", "auditstream_listener_up", "auditstream_drift"} {
		if !families[name] {
			t.Errorf("%s is missing", name)
		}
	}
	if _, err := auditstream.New(pool, o); err == nil || !strings.Contains(err.Error(), "Options.Registerer") {
		t.Errorf("a second service on one registry: %v", err)
	}
	if len(gathered(t, registry)) != len(families) {
		t.Error("the second service took metrics of the first one along")
	}
	stop()
	if left := gathered(t, registry); len(left) > 0 {
		t.Errorf("metrics are left after Run: %v", left)
	}
	_, stop = run(t, pool, o)
	stop()
}

func gathered(t *testing.T, registry *prometheus.Registry) map[string]bool {
	t.Helper()
	families, err := registry.Gather()
	testkit.NoError(t, err)
	names := map[string]bool{}
	for _, f := range families {
		names[f.GetName()] = true
	}
	return names
}

// LISTEN uses ListenConfig, and the log's messages about it have the names of the options.
func TestListenConfigAndItsName(t *testing.T) {
	t.Parallel()
	pool, log := database(t), new(testkit.Log)
	listen, err := pgx.ParseConfig("postgres://nobody@127.0.0.1:1/nowhere")
	testkit.NoError(t, err)
	as, _ := run(t, pool, auditstream.Options{ListenConfig: listen, Logger: log.Logger()})
	s := follow(t, serve(t, as)+"/readyz", "")
	s.until(t, `"listener":"polling"`)
	testkit.Eventually(t, "the log names the option", func() bool { return log.Has("Options.ListenConfig must be a direct connection") })
}

func TestReadyKnowsWhatIsMissing(t *testing.T) {
	t.Parallel()
	as, _ := run(t, open(t, pgtest.New(t)), auditstream.Options{})
	if err := as.Ready(within(t)); !errors.Is(err, auditstream.ErrNotInstalled) {
		t.Errorf("%v, want ErrNotInstalled", err)
	}
	as, _ = run(t, database(t), auditstream.Options{})
	if err := as.Ready(within(t)); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := as.Ready(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}
