package redisnotify

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"auditstream/internal/pgnotify"
	"auditstream/internal/redistest"
	"auditstream/internal/testkit"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// listen runs a Listener with long time-outs, so that a busy machine does not break its connection.
func listen(t *testing.T, url string, change ...func(*setup)) (*pgnotify.Listener, *sink) {
	t.Helper()
	heard := newSink()
	cfg := &setup{redis: options(t, url), ListenerConfig: pgnotify.ListenerConfig{
		Sink: heard, CanaryInterval: 100 * time.Millisecond, CanaryTimeout: patience, Registerer: prometheus.NewRegistry(),
	}}
	for _, c := range change {
		c(cfg)
	}
	source := NewSource(cfg.redis)
	cfg.Source = source
	if cfg.doubt != nil {
		cfg.Doubt = func() string { return cfg.doubt(source) }
	}
	l, err := pgnotify.NewListener(cfg.ListenerConfig)
	testkit.NoError(t, err)
	start(t, l.Run)
	return l, heard
}

// impatient sets short time-outs, for tests in which a canary must be given up.
func impatient(cfg *setup) { cfg.CanaryTimeout = 2 * time.Second }

// setup is what a test may change.
type setup struct {
	pgnotify.ListenerConfig
	redis *redis.Options
	doubt func(s *Source) string
}

// A message is a hint for the id in its channel's name, whatever its body says.
func TestMessagesAreHints(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	l, heard := listen(t, s.URL())
	testkit.Eventually(t, "up", l.Up)
	o := options(t, s.URL())
	for _, name := range []string{"audit.progress.", "audit.progress.0", "audit.progress.-1", "audit.progress.07", "audit.progress.1 ", "audit.progress.1.2", "audit.progress.!forged", "audit.progressive.9"} {
		publish(t, o, name, "7")
	}
	publish(t, o, channel(42), `{"audit_id":7,"status":"completed"}`)
	publish(t, o, channel(9223372036854775807), strings.Repeat("\x00\r\n", 1000))
	heard.hears(t, 42)
	heard.hears(t, 9223372036854775807)
	heard.mu.Lock()
	defer heard.mu.Unlock()
	if len(heard.ids) != 2 || heard.resyncs != 1 {
		t.Errorf("heard %v and %d resyncs, want two ids and the resync of the subscription", heard.ids, heard.resyncs)
	}
}

// Hints come back after each kind of outage, with a resync for those that were missed.
func TestDeadRedisRecovers(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	registry := prometheus.NewRegistry()
	l, heard := listen(t, s.URL(), func(cfg *setup) { cfg.Registerer = registry })
	testkit.Eventually(t, "up", l.Up)
	for round := range 3 {
		s.Kill()
		testkit.Eventually(t, "polling", func() bool { return !l.Up() })
		_, before := heard.counts(0)
		s.Restart(t)
		testkit.Eventually(t, "up again", l.Up)
		if _, after := heard.counts(0); after <= before {
			t.Errorf("no resync after restart %d", round)
		}
		id := int64(100 + round)
		publish(t, options(t, s.URL()), channel(id), "")
		heard.hears(t, id)
	}
	if got := testkit.Metric(t, registry, "auditstream_listener_connects_total"); got != 4 {
		t.Errorf("%v connects, want 4", got)
	}
}

// A Redis that hangs keeps its connections open, so only a missing canary shows it.
func TestPausedRedisIsNoticed(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	l, heard := listen(t, s.URL(), impatient)
	testkit.Eventually(t, "up", l.Up)
	testkit.NoError(t, s.Process().Signal(syscall.SIGSTOP))
	testkit.Eventually(t, "polling", func() bool { return !l.Up() })
	testkit.NoError(t, s.Process().Signal(syscall.SIGCONT))
	testkit.Eventually(t, "up again", l.Up)
	publish(t, options(t, s.URL()), channel(5), "")
	heard.hears(t, 5)
}

func TestTLSAndPassword(t *testing.T) {
	t.Parallel()
	cert, key, roots := testkit.Certificate(t)
	s := redistest.Start(t, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no", "--requirepass", "hush-password", "--tls-port", "{port}")

	trust := func(cfg *setup) { cfg.redis.TLSConfig.RootCAs = roots }
	l, _ := listen(t, "rediss://:hush-password@"+s.Addr+"/0", trust)
	testkit.Eventually(t, "up", l.Up)

	var log testkit.Log
	logged := func(cfg *setup) { cfg.Logger = log.Logger() }
	wrong, _ := listen(t, "rediss://:hush-wrong@"+s.Addr+"/0", trust, logged)
	untrusted, _ := listen(t, "rediss://:hush-password@"+s.Addr+"/0", logged)
	plain, _ := listen(t, "redis://:hush-password@"+s.Addr+"/0", logged)
	testkit.Eventually(t, "three warnings", func() bool { return log.Count("no subscription to Redis (REDIS_URL)") == 3 })
	if wrong.Up() || untrusted.Up() || plain.Up() {
		t.Error("up with a wrong password, a certificate that is not trusted, or without TLS")
	}
	if log.Has("hush") || !log.Has("WRONGPASS", "x509") {
		t.Errorf("log %s, want the causes and no password", &log)
	}
}

func TestParseURLTellsNoPassword(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"redis://u:p@h/0?hush=hush", "redis://hu?sh@h/0", "http://h?a=b", "rediss://h/0?db=1&skip_verify=true", "redis://h?pool_size=-1", "", "http://:hush@h", "redis://u:hush@h:port/0", "redis://u:hush@h/x", "redis://u:hu%sh@h", "redis://u:hush\n@h", "redis://u:hush@h/0/1"} {
		if _, err := ParseURL(url); err == nil || strings.Contains(err.Error(), "hu") || !strings.Contains(err.Error(), "only db is allowed") && !strings.Contains(err.Error(), "; give one like redis://") {
			t.Errorf("ParseURL(%q): %v, want what is allowed and no password", url, err)
		}
	}
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"redis://h":                  "tcp h:6379  0 false",
		"redis://:p@h:1/2":           "tcp h:1 :p 2 false",
		"rediss://u:p%3Fw@h/0":       "tcp h:6379 u:p?w 0 true",
		"redis://h?db=3":             "tcp h:6379  3 false",
		"unix://u:p@/run/redis?db=4": "unix /run/redis u:p 4 false",
	} {
		o := options(t, url)
		credentials := ""
		if o.Username+o.Password != "" {
			credentials = o.Username + ":" + o.Password
		}
		if got := fmt.Sprintf("%s %s %s %d %v", o.Network, o.Addr, credentials, o.DB, o.TLSConfig != nil); got != want {
			t.Errorf("ParseURL(%q): %s, want %s", url, got, want)
		}
	}
}
