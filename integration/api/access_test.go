package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

// The access log has a record of each request, a stream's when it begins, and nothing that a client chose freely.
func TestAPIAccessLog(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	i := harness.Serve(t, db.Serve, "ACCESS_LOG=on")
	i.WaitLog(t, "listening for notifications") // so that the database answers in time; to ask /readyz would be a request, too
	token := harness.AliceToken(t)
	i.AskAs(t, token, harness.StatusPath("1"), "X-Request-Id", "0123456789abcdef", "User-Agent", "chosen-freely")
	i.Ask(t, "GET", "/chosen-freely?token=chosen-freely", "X-Request-Id", "chosen-freely")
	s := i.Watch(t, "1", token)
	s.WantSoFar(t, harness.FirstEvent)
	s.Cancel()
	i.WaitLog(t, "stream ended")
	var got []string
	harness.Eventually(t, func() error {
		got = requests(i)
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
	harness.WantList(t, "access log", got, want)
	harness.WantNoneIn(t, i.Log.String(), "chosen-freely")
	if got := requests(harness.Serve(t, db.Serve)); len(got) != 0 {
		t.Errorf("without ACCESS_LOG the log has requests: %q", got)
	}
}

// requests are the access log's records so far: method, route, status and request id.
func requests(i *harness.Instance) (all []string) {
	for line := range strings.Lines(i.Log.String()) {
		var r map[string]any
		if json.Unmarshal([]byte(line), &r) == nil && r["msg"] == "request" {
			all = append(all, fmt.Sprint(r["method"], " ", r["route"], " ", r["status"], " ", r["request_id"]))
		}
	}
	return all
}
