package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/golang-jwt/jwt/v5"
)

// foreignHub is a hub whose audits are all carol's, but 7, which is alice's. It counts the keys of its subscriptions.
func foreignHub(asked *int) hubFunc {
	return func(_ context.Context, keys []store.Key, _ store.Viewer, _ func()) (Subscription, error) {
		*asked += len(keys)
		var states []*store.State
		for _, key := range keys {
			switch {
			case key == "7":
				states = append(states, auditOf(key, "alice", "completed", 100))
			case key.Int()%2 == 0:
				states = append(states, auditOf(key, "carol", "running", 1))
			default:
				states = append(states, &store.State{ID: key})
			}
		}
		return newSlot(states...), nil
	}
}

// listOf asks for n audits from the first on.
func listOf(first, n int) string {
	ids := make([]string, n)
	for k := range ids {
		ids[k] = strconv.Itoa(first + k)
	}
	return severalPath + "?ids=" + strings.Join(ids, ",")
}

// asUser is a request of a user's from an address.
func asUser(t *testing.T, path, user, address string) *http.Request {
	t.Helper()
	r := get(t, path, "Authorization", "Bearer "+sign(t, jwt.MapClaims{"sub": user, "exp": time.Now().Add(time.Hour).Unix()}))
	r.RemoteAddr = address + ":40000"
	return r
}

// One ordinary token, with requests for a hundred audits of others, 75 times a second, delayed all viewers.
func TestS4RefusedRequestsAreLimitedByUser(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked, log := 0, new(testkit.Log)
		s := newTestServer(t, foreignHub(&asked), func(c *Config) {
			c.MaxRefusedPerUser, c.Logger = 120, log.Logger()
		})
		for k := range 2 { // the second goes beyond: it was under way
			if c := serve(s, asUser(t, listOf(1000, 100), "bob", "192.0.2.1")); c.status != http.StatusForbidden {
				t.Fatalf("request %d: %d %s, want 403", k, c.status, c)
			}
		}
		before := asked
		for range 1000 {
			c := serve(s, asUser(t, listOf(1000, 100), "bob", "192.0.2.2")) // from anywhere
			if c.status != http.StatusOK || !strings.HasPrefix(c.String(), "retry: ") ||
				!strings.HasSuffix(c.String(), "\nevent: message\ndata: {\"error\":\"Too many refused requests\"}\n\n") {
				t.Fatalf("a stream: %d %q, want that it comes back later", c.status, c)
			}
			for _, path := range []string{statusPathOf42, "/api/v1/audits/7/status"} {
				c = serve(s, asUser(t, path, "bob", "192.0.2.1"))
				if c.status != http.StatusTooManyRequests || c.header.Get("Retry-After") == "" || c.String() != `{"error":"Too many refused requests"}` {
					t.Fatalf("a poll: %d, Retry-After %q, %s; want 429", c.status, c.header.Get("Retry-After"), c)
				}
			}
			if c = serve(s, asUser(t, severalPath, "bob", "192.0.2.1")); !strings.Contains(c.String(), "Too many refused requests") {
				t.Fatalf("all of the user's: %d %q", c.status, c)
			}
		}
		if asked != before || s.limit.count() != 0 {
			t.Errorf("%d audits were asked for beyond the limit, %d streams counted; want none", asked-before, s.limit.count())
		}
		if got := scrape(t, s); !strings.Contains(got, `auditstream_requests_refused_total{reason="too many refusals"} 4000`+"\n") {
			t.Errorf("not counted:\n%s", got)
		}
		if got := log.Count("SSE_MAX_REFUSED_PER_USER"); got != 1 {
			t.Errorf("%d warnings name the setting, want 1", got)
		}
		if c := serve(s, asUser(t, "/api/v1/audits/7/status", "alice", "192.0.2.1")); c.status != http.StatusOK {
			t.Errorf("another user: %d %s, want 200", c.status, c)
		}
		time.Sleep(time.Minute) // of which 40 s are for what went beyond
		if c := serve(s, asUser(t, statusPathOf42, "bob", "192.0.2.1")); c.status != http.StatusForbidden {
			t.Errorf("a minute later: %d %s, want 403", c.status, c)
		}
	})
}

func TestS4RefusedRequestsAreLimitedByAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s := newTestServer(t, foreignHub(&asked), func(c *Config) { c.MaxRefusedPerAddress = 100 })
		for k := range 4 {
			serve(s, asUser(t, listOf(1000, 30), fmt.Sprint("user ", k), "192.0.2.1"))
		}
		if c := serve(s, asUser(t, statusPathOf42, "yet another", "192.0.2.1")); c.status != http.StatusTooManyRequests {
			t.Errorf("the address: %d %s, want 429", c.status, c)
		}
		if c := serve(s, asUser(t, statusPathOf42, "user 0", "192.0.2.2")); c.status != http.StatusForbidden {
			t.Errorf("another address: %d %s, want 403", c.status, c)
		}
	})
}

// The limit does not affect a page whose list has a few deleted audits, or a user with many audits.
func TestS4FewDeadIDsAreNotNoticed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s := newTestServer(t, foreignHub(&asked), func(c *Config) { c.MaxRefusedPerUser, c.MaxRefusedPerAddress = 720, 720 })
		for second := range 150 { // ten refusals a second, of twelve
			for id := range 5 {
				for _, path := range []string{fmt.Sprintf("/api/v1/audits/%d/status", 2*id+101), severalPath + fmt.Sprintf("?ids=7,%d", 2*id+101)} {
					if c := serve(s, asUser(t, path, "alice", "192.0.2.1")); c.status != http.StatusNotFound {
						t.Fatalf("after %d s: %d %s, want 404", second, c.status, c)
					}
				}
			}
			for range 5 {
				if c := serve(s, asUser(t, "/api/v1/audits/7/status", "alice", "192.0.2.1")); c.status != http.StatusOK {
					t.Fatalf("after %d s: %d %s, want 200", second, c.status, c)
				}
			}
			time.Sleep(time.Second)
		}
	})
}

func TestS4LimitOfRefusalsIsBoundedItself(t *testing.T) {
	t.Parallel()
	b := newRefusalBuckets[string](60)
	for k := range 3 * maxBuckets {
		b.take(fmt.Sprint(k), 100)
	}
	if got := len(b.buckets); got != maxBuckets {
		t.Errorf("%d buckets, want %d", got, maxBuckets)
	}
	if last := fmt.Sprint(3*maxBuckets - 1); !b.empty(last) || b.empty("another") {
		t.Error("the newest is not limited, or somebody else is")
	}
	off := newRefusalBuckets[string](0)
	off.take("a", 1000)
	if off.empty("a") || len(off.buckets) != 0 {
		t.Error("0 is not: no limit")
	}
}

// Users whose refusals are long ago were remembered until there were 10,000 of them. And after that many at a time, too.
func TestS4RefusalsOfLongAgoAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // its time is not the clock's: Sleep waits for nothing
		b := newRefusalBuckets[string](60)
		most := 0
		refuse := func(first, users int) {
			for k := range users {
				b.take(fmt.Sprint(first+k), 1) // which is there again after a second
				if k%10 == 0 {
					b.take("one who goes on", 3)
				}
				most = max(most, len(b.buckets))
				time.Sleep(200 * time.Millisecond)
			}
		}
		refuse(0, 5000)
		if most > 310 {
			t.Errorf("%d users were remembered, where five a second were refused", most)
		}
		if !b.empty("one who goes on") || b.empty("4999") {
			t.Error("the wrong one is over the limit")
		}
		for k := range 2 * maxBuckets {
			b.take(fmt.Sprint("many ", k), 60)
		}
		time.Sleep(2 * time.Minute)
		most = 0
		refuse(0, 500)
		if most > 310 {
			t.Errorf("%d users were remembered, two minutes after a crowd was refused", most)
		}
	})
}

func TestRequestsAndConnectionsHaveOneAddress(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "fe80::1%lo"} {
		r := get(t, "/")
		r.RemoteAddr = net.JoinHostPort(address, "1234")
		if got, want := requestAddr(r), clientAddr(from(strings.TrimSuffix(address, "%lo"))); got != want {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
	}
}
