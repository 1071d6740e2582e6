package integration

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

	"auditstream/internal/pgtest"

	"github.com/golang-jwt/jwt/v5"
)

// Everything that openapi.yaml describes is made to happen once: every status, header and field, every reason for which a
// stream ends. That nothing else happens, here and in all other tests, is seen to by traffic.
func TestAPIDescriptionIsWhatHappens(t *testing.T) { overBoth(t, testAPIDescriptionIsWhatHappens) }

func testAPIDescriptionIsWhatHappens(t *testing.T) {
	description, err := readDescription()
	if err != nil {
		t.Fatal(err)
	}
	served := serve(t, newDatabase(t).Serve).ask(t, "GET", "/openapi.yaml").Body
	if file, err := os.ReadFile(repoPath("internal/server/web/openapi.yaml")); err != nil || string(file) != served {
		t.Fatalf("/openapi.yaml is not internal/server/web/openapi.yaml, against which answers are held: %v", err)
	}

	var mu sync.Mutex
	seen := map[string]bool{}
	t.Run("exchanges", func(t *testing.T) {
		for name, exchanges := range map[string]func(t *testing.T) []*instance{
			"states": stateExchanges, "refusals": refusalExchanges, "ends": endExchanges, "limits": limitExchanges,
			"unreadable": unreadableExchanges, "refused": refusedExchanges, "shutdown": shutdownExchanges, "more": moreExchanges, "word": wordExchanges,
		} {
			t.Run(name, func(t *testing.T) { // one after the other: parts of parts begin after all other tests, and alone
				for _, i := range exchanges(t) {
					i.traffic.mu.Lock()
					mu.Lock()
					maps.Copy(seen, i.traffic.marks)
					mu.Unlock()
					i.traffic.mu.Unlock()
				}
			})
		}
	})
	if t.Failed() {
		return
	}
	for _, what := range slices.Sorted(maps.Keys(description.all())) {
		if !seen[what] {
			t.Errorf("openapi.yaml describes what never came: %s", what)
		}
	}
}

// gone reads a stream to its end.
func (i *instance) gone(t testing.TB, path, token string, headers ...string) {
	t.Helper()
	i.open(t, path, token, headers...).whole(t)
}

// both asks with GET and with HEAD.
func (i *instance) both(t testing.TB, path string, headers ...string) answer {
	t.Helper()
	i.ask(t, "HEAD", path, headers...)
	return i.ask(t, "GET", path, headers...)
}

func stateExchanges(t *testing.T) []*instance {
	db := withJobs(t, newDatabase(t))
	i := serveJobs(t, db.Serve, "SSE_HEARTBEAT_SECONDS=1")
	i.waitReady(t, "up")
	i.both(t, "/readyz")
	i.both(t, "/healthz")
	i.both(t, "/openapi.yaml")

	id := db.insert(t, "status, message, error, geo_score, total_pages", "'running', 'm', 'e', 1.5, 3")
	auth := "Bearer " + alice(t)
	for _, path := range statusPaths(id) {
		etag := i.both(t, path, "Authorization", auth).Header.Get("ETag")
		i.both(t, path, "Authorization", auth, "If-None-Match", etag)
	}
	var streams []*stream
	for _, path := range streamPaths(id) {
		s := i.open(t, path, alice(t))
		eventually(t, func() error {
			if !strings.Contains(s.raw.String(), "\n\n: heartbeat\n\n") {
				return fmt.Errorf("no heartbeat in %q", s.raw.String())
			}
			return nil
		})
		streams = append(streams, s)
	}
	db.sql(t, "update audits set status = 'failed'")
	for k, path := range streamPaths(id) {
		streams[k].whole(t)
		etag := i.both(t, statusPaths(id)[k/2], "Authorization", auth).Header.Get("ETag")
		i.ask(t, "GET", path, "Authorization", auth, "Last-Event-ID", strings.Trim(etag, `"`))
	}
	return []*instance{i}
}

func refusalExchanges(t *testing.T) []*instance {
	db := withJobs(t, newFirstAudit(t))
	i := serveJobs(t, db.Serve)
	auth, bob := "Bearer "+alice(t), "Bearer "+token(t, jwt.MapClaims{"sub": "bob"})
	early := "Bearer " + token(t, jwt.MapClaims{"sub": "alice", "nbf": time.Now().Add(30 * time.Minute).Unix()})
	for _, path := range []string{streamPath("1"), severalPath, statusPath("1"), jobPath(streamPath("1")), jobPath(severalPath), jobPath(statusPath("1")), "/healthz", "/readyz", "/openapi.yaml"} {
		i.ask(t, "POST", path)
	}
	for _, path := range append(streamPaths("1"), statusPaths("1")...) {
		for _, method := range []string{"GET", "HEAD"} { // of a stream HEAD is 405
			i.ask(t, method, path)
			i.ask(t, method, path, "Authorization", "Bearer")
			i.ask(t, method, path, "Authorization", bob)
			i.ask(t, method, path, "Authorization", early)
			i.ask(t, method, strings.NewReplacer("/1/", "/x/", "=1", "=x").Replace(path), "Authorization", auth)
			for _, bad := range []string{"0", "99"} {
				i.ask(t, method, strings.NewReplacer("/1/", "/"+bad+"/", "=1", "="+bad).Replace(path), "Authorization", auth)
			}
		}
	}
	return []*instance{i}
}

func endExchanges(t *testing.T) []*instance {
	db := withJobs(t, newFirstAudit(t))
	short := serveJobs(t, db.Serve, "SSE_MAX_DURATION=1")
	i := serveJobs(t, db.Serve)
	i.waitReady(t, "up")
	for _, path := range streamPaths("1") {
		short.gone(t, path, alice(t))
		eventually(t, func() error { // a busy machine may take longer to connect than the token lasts
			s := i.open(t, path, token(t, jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(2 * time.Second).Unix()}))
			if got := s.whole(t); !strings.Contains(got, "Token expired") {
				return fmt.Errorf("the stream of a token that expires sent %q", got)
			}
			return nil
		})
	}
	for _, statement := range []string{"update audits set user_id = 'bob' where id = ", "delete from audits where id = "} {
		id := db.insert(t, "status", "'running'")
		var streams []*stream
		for _, path := range streamPaths(id) {
			s := i.open(t, path, alice(t))
			s.next(t)
			streams = append(streams, s)
		}
		db.sql(t, statement+id)
		for _, s := range streams {
			s.whole(t)
		}
	}
	return []*instance{short, i}
}

func limitExchanges(t *testing.T) []*instance {
	db := withJobs(t, newFirstAudit(t))
	full := serveJobs(t, db.Serve, "SSE_MAX_STREAMS=1")
	full.watch(t, "1", alice(t)).next(t)
	crowded := serveJobs(t, db.Serve, "HTTP_MAX_CONNECTIONS_PER_ADDRESS=1")
	crowded.watch(t, "1", alice(t)).next(t)
	refused := serveJobs(t, db.Serve, "SSE_MAX_REFUSED_PER_USER=1")
	for range 2 {
		for _, path := range statusPaths("99") {
			refused.both(t, path, "Authorization", "Bearer "+alice(t))
		}
	}
	iss := newIssuer(t) // which publishes nothing yet
	keyless := serve(t, db.Serve, iss.env()...)
	key, _ := ecKey(t, "e1")
	unknown := issued(t, jwt.SigningMethodES256, key, "e1", nil)
	var waiting sync.WaitGroup // each for the issuer, and for the one before
	for _, path := range streamPaths("1") {
		full.gone(t, path, alice(t))
		crowded.gone(t, path, alice(t))
		refused.gone(t, path, alice(t))
		waiting.Go(func() { keyless.gone(t, path, unknown) })
	}
	for _, path := range statusPaths("1") {
		waiting.Go(func() { keyless.both(t, path, "Authorization", "Bearer "+unknown) })
	}
	waiting.Wait()
	return []*instance{full, crowded, refused, keyless}
}

// A row that cannot be read.
func unreadableExchanges(t *testing.T) []*instance {
	db := withJobs(t, newFirstAudit(t))
	db.sql(t, `create or replace view auditstream.progress as
		select id as audit_id, user_id, user_email, status collate "C" as status, progress, message, case when error is not null then error::float8 end as geo_score,
			total_pages, null::text as error from audits;
		create or replace view auditstream.progress_jobs as
		select id, user_id, user_email, status collate "C" as status, case when error is not null then error::int else progress end as progress, message, null::float8 as geo_score,
			null::int as total_pages, null::text as error from audits; update audits set error = 'no number'`)
	i := serveJobs(t, db.Serve)
	for _, path := range statusPaths("1") {
		i.both(t, path, "Authorization", "Bearer "+alice(t))
	}
	for _, path := range streamPaths("1") {
		i.gone(t, path, alice(t))
	}
	i.both(t, "/readyz") // it counts them
	db.sql(t, `alter table audits disable trigger auditstream_truncate; notify auditstream, '*'`)
	i.waitLog(t, changedLog)
	eventually(t, func() error {
		if got := i.both(t, "/readyz"); !strings.Contains(got.Body, `"drift":["column","object"]`) { // and says what has changed
			return fmt.Errorf("/readyz: %s", got.Body)
		}
		return nil
	})
	return []*instance{i}
}

// Nothing can be read, whether notifications would still arrive or not.
func refusedExchanges(t *testing.T) []*instance {
	db := withJobs(t, newFirstAudit(t))
	listening, polling := serveJobs(t, db.Serve), serveJobs(t, db.Serve, "DATABASE_LISTEN_URL=postgres://nobody@127.0.0.1:1/none")
	listening.waitReady(t, "up")
	polling.waitReady(t, "polling")
	db.sql(t, "revoke select on auditstream.progress, auditstream.progress_jobs from "+role)
	for _, i := range []*instance{listening, polling} {
		eventually(t, func() error {
			if got := i.both(t, "/readyz"); got.Status != 503 {
				return fmt.Errorf("/readyz: %d, want 503", got.Status)
			}
			return nil
		})
		for _, path := range statusPaths("1") {
			i.both(t, path, "Authorization", "Bearer "+alice(t))
		}
	}
	return []*instance{listening, polling}
}

// shutdownExchanges has requests that wait for a silent database when the server is stopped. They wait for 2 s at most, so on a
// busy machine it may take more than one instance.
func shutdownExchanges(t *testing.T) (all []*instance) {
	db := withJobs(t, newDatabase(t))
	ids := db.insertMany(t, 2)
	eventually(t, func() error {
		proxy, through := pgtest.ProxyDSN(t, db.Serve)
		i := serveJobs(t, through)
		i.waitLog(t, "listening for notifications")
		proxy.Pause()
		var answers sync.WaitGroup
		ask := func(path, token string) <-chan string {
			body := make(chan string, 1)
			answers.Go(func() {
				resp, err := (&http.Client{Transport: recorded{RoundTripper: newTransport()}}).Do(request(t, t.Context(), i.URL+path, token))
				if err != nil {
					t.Error(err)
					body <- ""
					return
				}
				body <- readAll(t, resp.Body)
			})
			return body
		}
		ready := ask("/readyz", "")
		var streams []<-chan string
		for k, path := range streamPaths("ID") {
			streams = append(streams, ask(strings.Replace(path, "ID", ids[k%2], 1), alice(t)))
		}
		if !i.allWatched(t) {
			proxy.Resume()
			return fmt.Errorf("%d streams did not wait for the database together", len(streams))
		}
		i.signal(t, syscall.SIGTERM)
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
		i.end(t)
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
