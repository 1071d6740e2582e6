package server

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/golang-jwt/jwt/v5"
)

func TestLimitCountsInTotalAndByUser(t *testing.T) {
	t.Parallel()
	l := newStreamLimit(3, 2)
	for i, step := range []struct {
		user string
		want bool
	}{{"a", true}, {"a", true}, {"a", false}, {"b", true}, {"b", false}, {"c", false}} {
		if got := l.acquire(owner(step.user)); got != step.want {
			t.Errorf("step %d: acquire(%s) %v, want %v", i, step.user, got, step.want)
		}
	}
	l.release(owner("a"))
	if !l.acquire(owner("c")) {
		t.Error("no room after a release")
	}
	for _, user := range []string{"a", "b", "c"} {
		l.release(owner(user))
	}
	if len(l.users) != 0 || l.count() != 0 {
		t.Errorf("%d users and %d streams are kept, want none", len(l.users), l.count())
	}
}

func owner(subject string) store.Owner { return store.Viewer{Subject: subject}.Owners()[0] }

func TestNoLimitIsNoLimit(t *testing.T) {
	t.Parallel()
	l := newStreamLimit(0, 0)
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			if !l.acquire(owner("a")) {
				t.Error("refused")
			}
		})
	}
	wg.Wait()
	if got := l.count(); got != 1000 {
		t.Errorf("%d streams, want 1000", got)
	}
}

func TestS12LimitIsPerPerson(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		a, b jwt.MapClaims
		same bool
	}{
		"one sub":                          {jwt.MapClaims{"sub": "a"}, jwt.MapClaims{"sub": "a", "email": "x@y.z"}, true},
		"two subs":                         {jwt.MapClaims{"sub": "a"}, jwt.MapClaims{"sub": "b"}, false},
		"an address in another case (S12)": {jwt.MapClaims{"email": "x@y.z"}, jwt.MapClaims{"email": "X@Y.z"}, true},
		"a sub like an email":              {jwt.MapClaims{"sub": "x@y.z"}, jwt.MapClaims{"email": "x@y.z"}, false},
	} {
		v := newTestServer(t, hubFunc(unreachable), nil).verifier
		key := func(c jwt.MapClaims) store.Owner {
			c["exp"] = time.Now().Add(time.Hour).Unix()
			who, err := v.verify(t.Context(), sign(t, c))
			testkit.NoError(t, err)
			return who.key()
		}
		if a, b := key(tc.a), key(tc.b); (a == b) != tc.same {
			t.Errorf("%s: %v and %v", name, a, b)
		}
	}
}

// However a request ends, its place under the limit is free afterwards, and its subscription is cancelled.
func TestEveryPathReleasesWhatItTook(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		first   *store.State // nil: the database is away
		request func(r *http.Request)
	}{
		"terminal":   {first: ended("completed")},
		"seen":       {first: ended("completed"), request: func(r *http.Request) { r.Header.Set("Last-Event-ID", ended("completed").Fingerprint) }},
		"forbidden":  {first: auditOf("42", "bob", "running", 0)},
		"not found":  {first: &store.State{ID: "42"}},
		"unreadable": {first: &store.State{ID: "42", Err: errTest}},
		"no answer":  {},
		"no token":   {first: running(1), request: func(r *http.Request) { r.Header.Del("Authorization") }},
		"timeout":    {first: running(1)},
	} {
		for _, path := range []string{streamPath, "/api/v1/audits/42/status"} {
			t.Run(name+path[:10], testkit.Bubble(func(t *testing.T) {
				watching := 0
				s := newTestServer(t, hubFunc(func(ctx context.Context, _ []store.Key, _ store.Viewer, _ func()) (Subscription, error) {
					if tc.first == nil {
						return unreachable(ctx, nil, store.Viewer{}, nil)
					}
					watching++
					return countedSlot{newSlot(tc.first), func() { watching-- }}, nil
				}), nil)
				r := authorized(t, path)
				if tc.request != nil {
					tc.request(r)
				}
				serve(s, r)
				if watching != 0 || s.limit.count() != 0 {
					t.Errorf("%d subscriptions and %d streams left, want none", watching, s.limit.count())
				}
			}))
		}
	}
}

// A disconnect before the first read was logged as a failure of the database, with a warning each.
func TestClientThatDoesNotWaitIsNoWarning(t *testing.T) {
	t.Parallel()
	for _, path := range []string{streamPath, "/api/v1/audits/42/status"} {
		synctest.Test(t, func(t *testing.T) {
			log := new(testkit.Log)
			s := newTestServer(t, hubFunc(unreachable), func(c *Config) { c.Logger = log.Logger() })
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			serve(s, authorized(t, path).WithContext(ctx))
			if log.Lines() > 0 {
				t.Errorf("%s: logged\n%s", path, log)
			}
			if got := scrape(t, s); !strings.Contains(got, `auditstream_requests_refused_total{reason="client gone"} 1`) {
				t.Errorf("%s: not counted as a client that has gone", path)
			}
		})
	}
}

// count returns the number of open streams.
func (l *streamLimit) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}
