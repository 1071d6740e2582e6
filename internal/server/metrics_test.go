package server

import (
	"maps"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"
)

func scrape(t *testing.T, s *Server) string {
	t.Helper()
	w := httptest.NewRecorder()
	s.adminRoutes().ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1/metrics", nil))
	return w.Body.String()
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sub, states := one(running(1))
		s := newTestServer(t, sub, nil)
		serve(s, get(t, streamPath))
		streamed(t, s, authorized(t, streamPath), func(*client) {
			if got := scrape(t, s); !strings.Contains(got, `auditstream_streams_open{feed="audits"} 1`) {
				t.Error("the open stream is not counted")
			}
			announced := running(2)
			announced.Noticed = time.Now()
			time.Sleep(3 * time.Millisecond)
			states.put(announced)
			synctest.Wait()
			states.put(running(3)) // found by the safety net
			synctest.Wait()
			states.put(ended("completed"))
		})
		got := scrape(t, s)
		for _, line := range []string{
			`auditstream_streams_open{feed="audits"} 0`,
			`auditstream_events_sent_total{feed="audits"} 4`,
			`auditstream_streams_ended_total{reason="terminal"} 1`,
			`auditstream_streams_ended_total{reason="shutdown"} 0`,
			`auditstream_requests_refused_total{reason="missing token"} 1`,
			`auditstream_requests_refused_total{reason="too many streams"} 0`,
			`auditstream_commit_to_flush_seconds_count{feed="audits"} 1`,
			`auditstream_commit_to_flush_seconds_sum{feed="audits"} 0.003`,
		} {
			if !strings.Contains(got, line+"\n") {
				t.Errorf("%s is missing in\n%s", line, got)
			}
		}
	})
}

// No label has an id or a user: there are too many, and they are private.
func TestMetricsNameNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sub, _ := one(store.NewState(store.Row{ID: "4242", Status: "completed", UserID: text("alice")}))
		s := newTestServer(t, sub, nil)
		streamed(t, s, authorized(t, "/api/v1/sse/audits/4242/progress"), nil)
		got := scrape(t, s)
		if strings.Contains(got, "4242") || strings.Contains(got, "alice") {
			t.Errorf("an id or a user:\n%s", got)
		}
		for _, m := range regexp.MustCompile(`\{([a-z_]+)=`).FindAllStringSubmatch(got, -1) {
			if m[1] != "reason" && m[1] != "le" && m[1] != "feed" { // feeds are those of the operator, who has named them
				t.Errorf("label %s", m[1])
			}
		}
	})
}

func TestOneLineWhenAStreamEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := new(records)
		sub, states := one(running(1))
		s := newTestServer(t, sub, func(c *Config) { log.configure(c); c.AccessLog = false })
		streamed(t, s, authorized(t, streamPath), func(*client) {
			time.Sleep(time.Minute)
			states.put(ended("failed"))
		})
		want := map[string]any{"audit": 42.0, "duration": 60e9, "events": 2.0, "reason": "terminal"}
		if got := log.of(t, "stream ended"); len(got) != 1 || !maps.Equal(got[0], want) || log.Lines() != 1 || !log.Has(`"level":"INFO"`) {
			t.Errorf("logged\n%s\nwant one line of %v", log, want)
		}
	})
}

func TestUnreadableRowIsLoggedWithItsCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := new(testkit.Log)
		sub, states := one(running(1))
		s := newTestServer(t, sub, func(c *Config) { c.Logger = log.Logger() })
		c := streamed(t, s, authorized(t, streamPath), func(*client) { states.put(&store.State{ID: "42", Err: errTest}) })
		if !log.Has(errTest.Error()) || strings.Contains(c.String(), errTest.Error()) {
			t.Errorf("the cause belongs into the log alone:\n%s\n%s", log, c)
		}
	})
}

func TestAdminServesProfiles(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, hubFunc(unreachable), nil)
	for path, want := range map[string]int{"/metrics": 200, "/debug/pprof/": 200, "/debug/pprof/heap": 200, "/debug/pprof/symbol": 200, "/debug/pprof/none": 404, "/": 404,
		"/debug/pprof/cmdline": 404} { // flags may hold secrets, and the command line shows them
		w := httptest.NewRecorder()
		s.adminRoutes().ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1:9090"+path, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}
