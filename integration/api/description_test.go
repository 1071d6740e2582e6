package api

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/golang-jwt/jwt/v5"
)

// Everything that openapi.yaml describes is made to happen once: every status, header and field, every reason for which a
// stream ends. That nothing else happens, here and in all other tests, is seen to by traffic.
func TestAPIDescriptionIsWhatHappens(t *testing.T) {
	harness.OverHTTP1And2(t, testAPIDescriptionIsWhatHappens)
}

func testAPIDescriptionIsWhatHappens(t *testing.T) {
	description, err := harness.ReadDescription()
	harness.NoError(t, err)
	served := harness.Serve(t, harness.NewDatabase(t).Serve).Ask(t, "GET", "/openapi.yaml").Body
	if file, err := os.ReadFile(harness.Path("internal/server/web/openapi.yaml")); err != nil || string(file) != served {
		t.Fatalf("/openapi.yaml is not internal/server/web/openapi.yaml, against which answers are held: %v", err)
	}

	var mu sync.Mutex
	seen := map[string]bool{}
	t.Run("exchanges", func(t *testing.T) {
		for name, exchanges := range map[string]func(t *testing.T) []*harness.Instance{
			"states": stateExchanges, "refusals": refusalExchanges, "ends": endExchanges, "limits": limitExchanges,
			"unreadable": unreadableExchanges, "refused": refusedExchanges, "shutdown": shutdownExchanges, "more": moreExchanges, "word": wordExchanges,
		} {
			t.Run(name, func(t *testing.T) { // one after the other: parts of parts begin after all other tests, and alone
				for _, i := range exchanges(t) {
					i.Traffic.Mu.Lock()
					mu.Lock()
					maps.Copy(seen, i.Traffic.Marks)
					mu.Unlock()
					i.Traffic.Mu.Unlock()
				}
			})
		}
	})
	if t.Failed() {
		return
	}
	for _, what := range slices.Sorted(maps.Keys(description.All())) {
		if !seen[what] {
			t.Errorf("openapi.yaml describes what never came: %s", what)
		}
	}
}

// gone reads a stream to its end.
func gone(t testing.TB, i *harness.Instance, path, token string, headers ...string) {
	t.Helper()
	i.Open(t, path, token, headers...).Whole(t)
}

// both asks with GET and with HEAD.
func both(t testing.TB, i *harness.Instance, path string, headers ...string) harness.Answer {
	t.Helper()
	i.Ask(t, "HEAD", path, headers...)
	return i.Ask(t, "GET", path, headers...)
}

func stateExchanges(t *testing.T) []*harness.Instance {
	db := withJobs(t, harness.NewDatabase(t))
	i := serveJobs(t, db.Serve, "SSE_HEARTBEAT_SECONDS=1")
	i.WaitReady(t, "up")
	both(t, i, "/readyz")
	both(t, i, "/healthz")
	both(t, i, "/openapi.yaml")

	id := db.Insert(t, "status, message, error, geo_score, total_pages", "'running', 'm', 'e', 1.5, 3")
	auth := "Bearer " + harness.AliceToken(t)
	for _, path := range statusPaths(id) {
		etag := both(t, i, path, "Authorization", auth).Header.Get("ETag")
		both(t, i, path, "Authorization", auth, "If-None-Match", etag)
	}
	var streams []*harness.Stream
	for _, path := range streamPaths(id) {
		s := i.Open(t, path, harness.AliceToken(t))
		harness.WaitIn(t, s.Raw.String, "\n\n: heartbeat\n\n")
		streams = append(streams, s)
	}
	db.SQL(t, "update audits set status = 'failed'")
	for k, path := range streamPaths(id) {
		streams[k].Whole(t)
		etag := both(t, i, statusPaths(id)[k/2], "Authorization", auth).Header.Get("ETag")
		i.Ask(t, "GET", path, "Authorization", auth, "Last-Event-ID", strings.Trim(etag, `"`))
	}
	return []*harness.Instance{i}
}

func refusalExchanges(t *testing.T) []*harness.Instance {
	db := withJobs(t, harness.NewFirstAuditDatabase(t))
	i := serveJobs(t, db.Serve)
	auth, bob := "Bearer "+harness.AliceToken(t), "Bearer "+harness.Token(t, jwt.MapClaims{"sub": "bob"})
	early := "Bearer " + harness.Token(t, jwt.MapClaims{"sub": "alice", "nbf": time.Now().Add(30 * time.Minute).Unix()})
	for _, path := range []string{harness.StreamPath("1"), severalPath, harness.StatusPath("1"), jobPath(harness.StreamPath("1")), jobPath(severalPath), jobPath(harness.StatusPath("1")), "/healthz", "/readyz", "/openapi.yaml"} {
		i.Ask(t, "POST", path)
	}
	for _, path := range append(streamPaths("1"), statusPaths("1")...) {
		for _, method := range []string{"GET", "HEAD"} { // of a stream HEAD is 405
			i.Ask(t, method, path)
			i.Ask(t, method, path, "Authorization", "Bearer")
			i.Ask(t, method, path, "Authorization", bob)
			i.Ask(t, method, path, "Authorization", early)
			i.Ask(t, method, strings.NewReplacer("/1/", "/x/", "=1", "=x").Replace(path), "Authorization", auth)
			for _, bad := range []string{"0", "99"} {
				i.Ask(t, method, strings.NewReplacer("/1/", "/"+bad+"/", "=1", "="+bad).Replace(path), "Authorization", auth)
			}
		}
	}
	return []*harness.Instance{i}
}

func endExchanges(t *testing.T) []*harness.Instance {
	db := withJobs(t, harness.NewFirstAuditDatabase(t))
	short := serveJobs(t, db.Serve, "SSE_MAX_DURATION=1")
	i := serveJobs(t, db.Serve)
	i.WaitReady(t, "up")
	for _, path := range streamPaths("1") {
		gone(t, short, path, harness.AliceToken(t))
		harness.Eventually(t, func() error { // a busy machine may take longer to connect than the token lasts
			s := i.Open(t, path, harness.Token(t, jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(2 * time.Second).Unix()}))
			if got := s.Whole(t); !strings.Contains(got, "Token expired") {
				return fmt.Errorf("the stream of a token that expires sent %q", got)
			}
			return nil
		})
	}
	for _, statement := range []string{"update audits set user_id = 'bob' where id = ", "delete from audits where id = "} {
		id := db.Insert(t, "status", "'running'")
		var streams []*harness.Stream
		for _, path := range streamPaths(id) {
			s := i.Open(t, path, harness.AliceToken(t))
			s.Next(t)
			streams = append(streams, s)
		}
		db.SQL(t, statement+id)
		for _, s := range streams {
			s.Whole(t)
		}
	}
	return []*harness.Instance{short, i}
}

func limitExchanges(t *testing.T) []*harness.Instance {
	db := withJobs(t, harness.NewFirstAuditDatabase(t))
	full := serveJobs(t, db.Serve, "SSE_MAX_STREAMS=1")
	full.Watch(t, "1", harness.AliceToken(t)).Next(t)
	crowded := serveJobs(t, db.Serve, "HTTP_MAX_CONNECTIONS_PER_ADDRESS=4")
	for open, tries := 0, 0; open < 4; tries++ {
		if tries == 20 {
			t.Fatalf("%d streams of one address are open after %d tries, want 4", open, tries)
		}
		http.DefaultClient.CloseIdleConnections() // that of serveJobs counts, too, until the server has seen that it is closed
		if crowded.Watch(t, "1", harness.AliceToken(t)).NextProgress(t).Error == nil {
			open++
		}
	}
	refused := serveJobs(t, db.Serve, "SSE_MAX_REFUSED_PER_USER=1")
	for range 2 {
		for _, path := range statusPaths("99") {
			both(t, refused, path, "Authorization", "Bearer "+harness.AliceToken(t))
		}
	}
	iss := harness.NewIssuer(t) // which publishes nothing yet
	keyless := harness.Serve(t, db.Serve, iss.Env()...)
	key, _ := harness.ECKey(t, "e1")
	unknown := harness.IssuedToken(t, jwt.SigningMethodES256, key, "e1", nil)
	var waiting sync.WaitGroup // each for the issuer, and for the one before
	for _, path := range streamPaths("1") {
		gone(t, full, path, harness.AliceToken(t))
		gone(t, crowded, path, harness.AliceToken(t))
		gone(t, refused, path, harness.AliceToken(t))
		waiting.Go(func() { gone(t, keyless, path, unknown) })
	}
	for _, path := range statusPaths("1") {
		waiting.Go(func() { both(t, keyless, path, "Authorization", "Bearer "+unknown) })
	}
	waiting.Wait()
	return []*harness.Instance{full, crowded, refused, keyless}
}

// A row that cannot be read.
func unreadableExchanges(t *testing.T) []*harness.Instance {
	db := withJobs(t, harness.NewFirstAuditDatabase(t))
	db.SQL(t, `create or replace view auditstream.progress as
		select id as audit_id, user_id, user_email, status collate "C" as status, progress, message, case when error is not null then error::float8 end as geo_score,
			total_pages, null::text as error from audits;
		create or replace view auditstream.progress_jobs as
		select id, user_id, user_email, status collate "C" as status, case when error is not null then error::int else progress end as progress, message, null::float8 as geo_score,
			null::int as total_pages, null::text as error from audits; update audits set error = 'no number'`)
	i := serveJobs(t, db.Serve)
	for _, path := range statusPaths("1") {
		both(t, i, path, "Authorization", "Bearer "+harness.AliceToken(t))
	}
	for _, path := range streamPaths("1") {
		gone(t, i, path, harness.AliceToken(t))
	}
	both(t, i, "/readyz") // it counts them
	db.SQL(t, `alter table audits disable trigger auditstream_truncate; notify auditstream, '*'`)
	i.WaitLog(t, harness.ChangedLog)
	harness.Eventually(t, func() error {
		if got := both(t, i, "/readyz"); !strings.Contains(got.Body, `"drift":["column","object"]`) { // and says what has changed
			return fmt.Errorf("/readyz: %s", got.Body)
		}
		return nil
	})
	return []*harness.Instance{i}
}

// Nothing can be read, whether notifications would still arrive or not.
func refusedExchanges(t *testing.T) []*harness.Instance {
	db := withJobs(t, harness.NewFirstAuditDatabase(t))
	listening, polling := serveJobs(t, db.Serve), serveJobs(t, db.Serve, "DATABASE_LISTEN_URL=postgres://nobody@127.0.0.1:1/none")
	listening.WaitReady(t, "up")
	polling.WaitReady(t, "polling")
	db.SQL(t, "revoke select on auditstream.progress, auditstream.progress_jobs from "+harness.ServeRole)
	for _, i := range []*harness.Instance{listening, polling} {
		harness.Eventually(t, func() error {
			if got := both(t, i, "/readyz"); got.Status != 503 {
				return fmt.Errorf("/readyz: %d, want 503", got.Status)
			}
			return nil
		})
		for _, path := range statusPaths("1") {
			both(t, i, path, "Authorization", "Bearer "+harness.AliceToken(t))
		}
	}
	return []*harness.Instance{listening, polling}
}

// shutdownExchanges has requests that wait for a silent database when the server is stopped. They wait for 2 s at most, so on a
// busy machine it may take more than one instance.
func shutdownExchanges(t *testing.T) (all []*harness.Instance) {
	db := withJobs(t, harness.NewDatabase(t))
	ids := db.InsertMany(t, 2)
	harness.Eventually(t, func() error {
		proxy, through := pgtest.ProxyDSN(t, db.Serve)
		i := serveJobs(t, through)
		i.WaitLog(t, "listening for notifications")
		proxy.Pause()
		var answers sync.WaitGroup
		ask := func(path, token string) <-chan string {
			body := make(chan string, 1)
			answers.Go(func() {
				resp, err := (&http.Client{Transport: harness.Recorded{RoundTripper: harness.NewTransport()}}).Do(harness.Request(t, t.Context(), i.URL+path, token))
				if err != nil {
					t.Error(err)
					body <- ""
					return
				}
				body <- harness.ReadAll(t, resp.Body)
			})
			return body
		}
		ready := ask("/readyz", "")
		var streams []<-chan string
		for k, path := range streamPaths("ID") {
			streams = append(streams, ask(strings.Replace(path, "ID", ids[k%2], 1), harness.AliceToken(t)))
		}
		if !allWatched(t, i) {
			proxy.Resume()
			return fmt.Errorf("%d streams did not wait for the database together", len(streams))
		}
		i.Signal(t, syscall.SIGTERM)
		var told []string
		for _, s := range streams {
			told = append(told, <-s)
		}
		proxy.Resume()
		told = append(told, <-ready)
		if last := told[len(told)-1]; !strings.Contains(last, `"database":"up"`) { // too late on a busy machine
			return fmt.Errorf("/readyz, asked before the server was stopped: %s", last)
		}
		answers.Wait()
		i.End(t)
		all = append(all, i)
		for _, got := range told {
			if !strings.Contains(strings.ToLower(got), "shutting down") {
				return fmt.Errorf("requests that waited when the server was stopped were told %q", told)
			}
		}
		return nil
	})
	return all
}
