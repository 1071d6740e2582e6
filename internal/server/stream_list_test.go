package server

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
)

const severalPath = "/api/v1/sse/audits/progress"

func auditOf(id store.Key, owner, status string, progress int) *store.State {
	return store.NewState(store.Row{ID: id, Status: status, Progress: progress, UserID: text(owner)})
}

// group is a hub with one slot, which holds the first states, if any. It records the keys of the subscription.
func group(asked *[]store.Key, first ...*store.State) (hubFunc, *slot) {
	s := newSlot(first...)
	return func(_ context.Context, keys []store.Key, _ store.Viewer, wake func()) (Subscription, error) {
		if asked != nil {
			*asked = keys
		}
		s.wake = wake
		return s, nil
	}, s
}

func TestSeveralEndWhenAllHave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two, three := auditOf("1", "alice", "running", 10), auditOf("2", "alice", "completed", 100), auditOf("3", "alice", "running", 30)
		var asked []store.Key
		g, slot := group(&asked, one, two, three)
		more, endOne, endThree := auditOf("3", "alice", "running", 40), auditOf("1", "alice", "failed", 10), auditOf("3", "alice", "completed", 100)
		c := streamed(t, newTestServer(t, g, nil), authorized(t, severalPath+"?ids=3,1,2,1"), func(*client) {
			slot.put(more, endOne)
			slot.put(endThree)
		})
		want := begun + event(three) + event(one) + event(two) + event(more) + event(endOne) + event(endThree) +
			"id: " + endID([]*store.State{endThree, two, endOne}) + "\n\n"
		if got := c.String(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if !slices.Equal(asked, []store.Key{"3", "1", "2"}) {
			t.Errorf("asked for %v", asked)
		}
	})
}

// A client that lost the stream between two ends has not seen the second: no 204.
func TestSeveralResume(t *testing.T) {
	t.Parallel()
	one, two := auditOf("1", "alice", "completed", 100), auditOf("2", "alice", "failed", 3)
	end := endID([]*store.State{one, two})
	for _, tt := range []struct {
		ids, last string
		states    []*store.State
		want      int
	}{
		{"1,2", end, []*store.State{one, two}, http.StatusNoContent},
		{"2,1", end, []*store.State{two, one}, http.StatusNoContent},
		{"1,2", one.Fingerprint, []*store.State{one, two}, http.StatusOK},
		{"1,2", two.Fingerprint, []*store.State{one, two}, http.StatusOK},
		{"1,2", "", []*store.State{one, two}, http.StatusOK},
		{"1", one.Fingerprint, []*store.State{one}, http.StatusNoContent},
		{"1", end, []*store.State{one}, http.StatusOK},
	} {
		g, _ := group(nil, tt.states...)
		c := serve(newTestServer(t, g, nil), authorized(t, severalPath+"?ids="+tt.ids, "Last-Event-ID", tt.last))
		if c.status != tt.want {
			t.Errorf("ids %s, last %s: status %d, want %d", tt.ids, tt.last, c.status, tt.want)
		}
		if tail := "id: " + end + "\n\n"; tt.want == 200 && len(tt.states) == 2 && !strings.HasSuffix(c.String(), tail) {
			t.Errorf("ids %s: got\n%s\nwant the end %s", tt.ids, c.String(), tail)
		}
	}
}

func TestSeveralAreRefusedAltogether(t *testing.T) {
	t.Parallel()
	mine, foreign, gone := auditOf("1", "alice", "running", 1), auditOf("2", "bob", "running", 2), &store.State{ID: "3"}
	for ids, want := range map[string]string{
		"1,2,3": `403 {"error":"Cross-user access denied: audit 2"}`,
		"1,3,2": `404 {"error":"Audit not found: audit 3"}`,
	} {
		g, _ := group(nil, gone, foreign, mine)
		s := newTestServer(t, g, nil)
		c := serve(s, authorized(t, severalPath+"?ids="+ids))
		if got := fmt.Sprint(c.status, " ", c.String()); got != want {
			t.Errorf("ids %s: %s, want %s", ids, got, want)
		}
		if s.limit.count() != 0 {
			t.Error("the stream is still counted")
		}
	}
}

// When a hub had taken some states out of the slot for a moment, a user without access got a stream.
func TestSeveralAreRefusedWhenFirstStatesAreMissing(t *testing.T) {
	t.Parallel()
	for _, first := range [][]*store.State{nil, {auditOf("1", "alice", "running", 1)}} {
		g, slot := group(nil, first...)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		c := serve(newTestServer(t, g, nil), authorized(t, severalPath+"?ids=1,2").WithContext(ctx))
		if !strings.HasSuffix(c.String(), "data: {\"error\":\"Internal server error\"}\n\n") || strings.Contains(c.String(), "audit_id") {
			t.Errorf("%d of 2 states: %q, want that it comes back", len(first), c.String())
		}
		if slot.times("confirm") != 0 || slot.times("cancel") != 1 {
			t.Errorf("calls %v", slot.calls)
		}
	}
}

// A row that was asked for ends the stream when it may not be shown any more; on a stream of all the user's rows it is left out.
func TestSeveralThatMayNotBeShownAnyMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two := auditOf("1", "alice", "running", 1), auditOf("2", "alice", "running", 2)
		g, slot := group(nil, one, two)
		c := streamed(t, newTestServer(t, g, nil), authorized(t, severalPath+"?ids=1,2"), func(*client) {
			slot.put(&store.State{ID: "2"}, auditOf("1", "alice", "running", 9))
		})
		if want := begun + event(one) + event(two) + "event: message\ndata: {\"error\":\"Audit not found\"}\n\n"; c.String() != want {
			t.Errorf("got\n%s\nwant\n%s", c.String(), want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		one, last := auditOf("1", "alice", "completed", 100), auditOf("4", "alice", "running", 9)
		g, slot := group(nil)
		s := newTestServer(t, g, nil)
		c := streamed(t, s, authorized(t, severalPath), func(c *client) {
			if got := c.String(); got != begun+"\n" {
				t.Errorf("a stream of none begins with %q", got)
			}
			slot.put(&store.State{ID: "2"}, auditOf("3", "bob", "running", 1), one, &store.State{ID: "5", Err: errTest}, last)
			time.Sleep(2 * time.Hour)
		})
		got, _, _ := strings.Cut(c.String(), heartbeat)
		if want := begun + "\n" + event(one) + event(last); got != want || !strings.HasSuffix(c.String(), "{\"error\":\"Stream timeout\"}\n\n") {
			t.Errorf("got\n%s\nwant\n%s, heartbeats, the timeout", c.String(), want)
		}
	})
}

func FuzzQueryIDs(f *testing.F) {
	for _, query := range []string{"", "ids=1", "ids=3,1,2", "ids=1,1", "ids=", "ids=1,", "ids=,1", "ids=1&ids=2", "ids=1;2", "ids=0", "ids=-1", "ids=01",
		"ids=+1", "ids=%2c", "ids=1%2C2", "ids=9223372036854775807", "ids=9223372036854775808", "ids=%zz", "IDS=1", "a=b", "ids=" + strings.Repeat("1,", 100) + "1"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		ids, err := queryKeys(&http.Request{URL: &url.URL{RawQuery: query}}, store.Audits)
		switch {
		case err != nil:
			if err != errInvalidKeys || ids != nil {
				t.Errorf("%q: %v, %v", query, ids, err)
			}
			return
		case ids == nil:
			if values, err := url.ParseQuery(query); err != nil || values.Has("ids") {
				t.Errorf("%q is taken for no list", query)
			}
			return
		}
		seen := make(map[store.Key]bool)
		for _, id := range ids {
			if id.Int() < 1 || seen[id] {
				t.Errorf("%q: %v", query, ids)
			}
			seen[id] = true
		}
		again, err := queryKeys(&http.Request{URL: &url.URL{RawQuery: "ids=" + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(ids)), ","), "[]")}}, store.Audits)
		if len(ids) > maxIDs || err != nil || !slices.Equal(again, ids) {
			t.Errorf("%q: %v, again %v, %v", query, ids, again, err)
		}
	})
}

func TestQueryIDs(t *testing.T) {
	t.Parallel()
	hundred := strings.TrimSuffix(strings.Repeat("7,", maxIDs), ",")
	for query, want := range map[string]int{"": 0, "a=b": 0, "ids=3,1,2": 3, "ids=1%2C2": 2, "ids=5,5": 1, "ids=" + hundred: 1,
		"ids=" + hundred + ",7": -1, "ids=": -1, "ids": -1, "ids=1,": -1, "ids=1, 2": -1, "ids=1&ids=2": -1, "ids=1;2": -1, "ids=01": -1, "ids=x": -1, "ids=%zz": -1} {
		ids, err := queryKeys(&http.Request{URL: &url.URL{RawQuery: query}}, store.Audits)
		if got := map[bool]int{true: -1, false: len(ids)}[err != nil]; got != want {
			t.Errorf("%q: %v, %v, want %d ids", query, ids, err, want)
		}
	}
}
