package api

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

// exchange sends the bytes of a request and returns the bytes of the answer's head, without its Date, and the body.
func exchange(t testing.TB, i *harness.Instance, request string) (head, body string) {
	t.Helper()
	conn := harness.Dial(t, i.URL)
	_, err := io.WriteString(conn, request)
	harness.NoError(t, err)
	var raw bytes.Buffer
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, &raw)), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%v after %q", err, raw.String())
	}
	body = harness.ReadAll(t, resp.Body)
	line := strings.Fields(request)
	i.Traffic.Judge(&http.Request{Method: method, URL: &url.URL{Path: strings.Split(line[1], "?")[0]}}, resp, []byte(body))
	head, _, _ = strings.Cut(raw.String(), "\r\n\r\n")
	return regexp.MustCompile(`\r\nDate: [^\r]*`).ReplaceAllString(head, ""), body
}

func TestAPIEventData(t *testing.T) { harness.OverHTTP1And2(t, testAPIEventData) }

func testAPIEventData(t *testing.T) {
	db := harness.NewDatabase(t)
	i := harness.Serve(t, db.Serve, "SSE_RETRY_MS=1234")
	db.SQL(t, "alter table audits alter status drop not null, drop constraint audits_status_check, drop constraint audits_progress_check")
	for _, tt := range []struct{ name, columns, values, want string }{
		{"only the fields that are always there", "", "", `"status":"pending","progress":0`},
		{"every field, in order", "status, progress, message, geo_score, total_pages, error",
			"'failed', 40, 'Crawling', 12.25, 17, 'boom'",
			`"status":"failed","progress":40,"message":"Crawling","geo_score":12.25,"total_pages":17,"error":"boom"`},
		{"error only when failed", "status, error", "'running', 'left over from the last try'", `"status":"running","progress":0`},
		{"failed without an error", "status", "'failed'", `"status":"failed","progress":0`},
		{"empty is not NULL", "status, message, geo_score, total_pages, error", "'failed', '', 0, 0, ''",
			`"status":"failed","progress":0,"message":"","geo_score":0,"total_pages":0,"error":""`},
		{"no HTML escaping", "message", `'<b>R&D</b> "quoted" \ done'`, `"status":"pending","progress":0,"message":"<b>R&D</b> \"quoted\" \\ done"`},
		{"unicode", "message", `'日本語 🎉 naïve é'`, `"status":"pending","progress":0,"message":"日本語 🎉 naïve é"`},
		{"line breaks stay inside the event", "message", `E'one\ntwo\r\n\r\ndata: three\nevent: x\n\n'`,
			`"status":"pending","progress":0,"message":"one\ntwo\r\n\r\ndata: three\nevent: x\n\n"`},
		{"control characters", "message", `E'\x01\t\x7f'`, "\"status\":\"pending\",\"progress\":0,\"message\":\"\\u0001\\t\x7f\""},
		{"a score with many digits", "geo_score", "0.1::float8 + 0.2::float8", `"status":"pending","progress":0,"geo_score":0.30000000000000004`},
		{"a score that JSON cannot express", "geo_score", "'NaN'", `"status":"pending","progress":0`},
		{"an infinite score", "geo_score", "'-Infinity'", `"status":"pending","progress":0`},
		{"progress beyond the percentage", "progress", "250", `"status":"pending","progress":100`},
		{"progress below it", "progress", "-3", `"status":"pending","progress":0`},
		{"a status of the application's own, in lower case", "status", "'Waiting'", `"status":"waiting","progress":0`},
		{"no status", "status", "null", `"status":"pending","progress":0`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := db.Insert(t, tt.columns, tt.values)
			want := fmt.Sprintf(`{"audit_id":%s,%s}`, id, tt.want)
			s := i.Watch(t, id, harness.AliceToken(t))
			event := s.Next(t)
			harness.Equal(t, event.Data, want, "data")
			harness.Equal(t, event.Type, "message", "event type")
			if !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(event.LastEventID) {
				t.Errorf("id %q, want 16 hex digits", event.LastEventID)
			}
			wantRaw := ": heartbeat every 30 s\n\nretry: 1234\nevent: message\nid: " + event.LastEventID + "\ndata: " + want + "\n\n"
			harness.Equal(t, s.Raw.String(), wantRaw, "bytes")
		})
	}
}
