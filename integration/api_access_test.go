package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The access log has a record of each request, a stream's when it begins, and nothing that a client chose freely.
func TestAPIAccessLog(t *testing.T) {
	t.Parallel()
	db := newFirstAudit(t)
	i := serve(t, db.Serve, "ACCESS_LOG=on")
	i.waitLog(t, "listening for notifications") // so that the database answers in time; to ask /readyz would be a request, too
	token := alice(t)
	i.ask(t, "GET", statusPath("1"), "Authorization", "Bearer "+token, "X-Request-Id", "0123456789abcdef", "User-Agent", "chosen-freely")
	i.ask(t, "GET", "/chosen-freely?token=chosen-freely", "X-Request-Id", "chosen-freely")
	s := i.watch(t, "1", token)
	s.wantSoFar(t, firstEvent)
	s.cancel()
	i.waitLog(t, "stream ended")
	var got []string
	eventually(t, func() error {
		got = i.requests()
		if len(got) != 3 {
			return fmt.Errorf("requests in the log: %q, want 3", got)
		}
		return nil
	})
	slices.Sort(got) // a record follows its answer, and so may come after the next request's
	want := []string{
		"GET /api/v1/audits/1/status 200 0123456789abcdef",
		"GET /api/v1/sse/audits/1/progress 200 <nil>",
		"GET none 404 <nil>",
	}
	wantList(t, "access log", got, want)
	if strings.Contains(i.log.String(), "chosen-freely") {
		t.Errorf("the log has what a client chose:\n%s", i.log.String())
	}
	if got := serve(t, db.Serve).requests(); len(got) != 0 {
		t.Errorf("without ACCESS_LOG the log has requests: %q", got)
	}
}

// requests are the access log's records so far: method, route, status and request id.
func (i *instance) requests() (all []string) {
	for line := range strings.Lines(i.log.String()) {
		var r map[string]any
		if json.Unmarshal([]byte(line), &r) == nil && r["msg"] == "request" {
			all = append(all, fmt.Sprint(r["method"], " ", r["route"], " ", r["status"], " ", r["request_id"]))
		}
	}
	return all
}
