package api

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// exchange sends the bytes of a request and returns the bytes of the answer's head, without its Date, and the body.
func exchange(t testing.TB, i *harness.Instance, request string) (head, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(i.URL, "http://"))
	harness.NoError(t, err)
	defer conn.Close()
	harness.NoError(t, conn.SetDeadline(time.Now().Add(harness.Patience)))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
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

func TestAPIStreamIsLiterallyTheContracts(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	i := harness.Serve(t, db.Serve)
	i.WaitReady(t, "up")
	id := db.Insert(t, "status, progress, message", "'running', 25, 'Analyzing pages...'")

	s := i.Watch(t, id, harness.AliceToken(t))
	s.WantEvent(t, `{"audit_id":1,"status":"running","progress":25,"message":"Analyzing pages..."}`)
	db.SQL(t, "update audits set progress = 50, message = 'Running competitor analysis...'")
	s.WantEvent(t, `{"audit_id":1,"status":"running","progress":50,"message":"Running competitor analysis..."}`)
	db.SQL(t, "update audits set status = 'completed', progress = 100, message = null, geo_score = 78.5")
	// The ids are those of every version of the program: the first 8 bytes of the SHA-256 of data.
	events := `: heartbeat every 30 s

retry: 5000
event: message
id: 0249ba9950110425
data: {"audit_id":1,"status":"running","progress":25,"message":"Analyzing pages..."}

event: message
id: 51a5684740282c14
data: {"audit_id":1,"status":"running","progress":50,"message":"Running competitor analysis..."}

event: message
id: 95922ea8e7dc0642
data: {"audit_id":1,"status":"completed","progress":100,"geo_score":78.5}

`
	s.WantWhole(t, events)

	head, body := exchange(t, i, "GET "+harness.StreamPath(id)+" HTTP/1.1\r\nHost: localhost\r\nAuthorization: bearer "+harness.AliceToken(t)+"\r\n\r\n")
	wantHead := "HTTP/1.1 200 OK\r\nCache-Control: no-cache, no-store, no-transform\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked"
	if head != wantHead {
		t.Errorf("head of the answer\n%s\nwant\n%s", head, wantHead)
	}
	// Connecting to an audit that has ended: its state, and the end.
	want := ": heartbeat every 30 s\n\nretry: 5000\nevent: message\nid: 95922ea8e7dc0642\ndata: {\"audit_id\":1,\"status\":\"completed\",\"progress\":100,\"geo_score\":78.5}\n\n"
	if body != want {
		t.Errorf("stream of an audit that has ended\n%s\nwant\n%s", body, want)
	}
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
			if event.Data != want {
				t.Errorf("data\n%s\nwant\n%s", event.Data, want)
			}
			if event.Type != "message" {
				t.Errorf("event type %q, want message", event.Type)
			}
			if !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(event.LastEventID) {
				t.Errorf("id %q, want 16 hex digits", event.LastEventID)
			}
			wantRaw := ": heartbeat every 30 s\n\nretry: 1234\nevent: message\nid: " + event.LastEventID + "\ndata: " + want + "\n\n"
			if got := s.Raw.String(); got != wantRaw {
				t.Errorf("bytes\n%q\nwant\n%q", got, wantRaw)
			}
		})
	}
}

func TestAPIIDIsTheSameOnEveryInstance(t *testing.T) {
	harness.OverHTTP1And2(t, testAPIIDIsTheSameOnEveryInstance)
}

func testAPIIDIsTheSameOnEveryInstance(t *testing.T) {
	db := harness.NewDatabase(t)
	one, two := harness.Serve(t, db.Serve), harness.Serve(t, db.Serve)
	one.WaitReady(t, "up")
	two.WaitReady(t, "up")
	id := db.Insert(t, "status, progress", "'running', 10")
	streams := []*harness.Stream{one.Watch(t, id, harness.AliceToken(t)), two.Watch(t, id, harness.AliceToken(t))}
	for _, s := range streams {
		s.WantEvent(t, `{"audit_id":1,"status":"running","progress":10}`)
	}
	seen := map[string]bool{}
	for _, progress := range []string{"20", "30", "10"} {
		db.SQL(t, "update audits set progress = "+progress)
		a, b := streams[0].Next(t), streams[1].Next(t)
		if want := `{"audit_id":1,"status":"running","progress":` + progress + `}`; a.Data != want || b.Data != want {
			t.Errorf("events\n%s\n%s\nwant\n%s", a.Data, b.Data, want)
		}
		if a.LastEventID != b.LastEventID {
			t.Errorf("ids %s and %s of one state, want the same", a.LastEventID, b.LastEventID)
		}
		if seen[a.LastEventID] {
			t.Errorf("id %s for two states", a.LastEventID)
		}
		seen[a.LastEventID] = true
	}
	// The state is that of the beginning again, after a restart: the id is too.
	three := harness.Serve(t, db.Serve)
	again := three.Watch(t, id, harness.AliceToken(t)).Next(t)
	first, _, _ := strings.Cut(streams[0].Raw.String(), "\ndata: ")
	if want := ": heartbeat every 30 s\n\nretry: 5000\nevent: message\nid: " + again.LastEventID; first != want {
		t.Errorf("first id of the first instance\n%s\nwant that of the last one\n%s", first, want)
	}
}

func TestAPIOnlyChangesAreSent(t *testing.T) { harness.OverHTTP1And2(t, testAPIOnlyChangesAreSent) }

func testAPIOnlyChangesAreSent(t *testing.T) {
	db := harness.NewDatabase(t)
	i := harness.Serve(t, db.Serve)
	i.WaitReady(t, "up")
	id := db.Insert(t, "status, progress", "'running', 10")
	other := db.Insert(t, "status, progress", "'running', 1")
	s := i.Watch(t, id, harness.AliceToken(t))
	s.WantEvent(t, `{"audit_id":1,"status":"running","progress":10}`)
	for _, statement := range []string{
		"update audits set progress = 10 where id = " + id,
		"update audits set updated_at = now(), url = 'https://example.org' where id = " + id,
		"update audits set error = 'not failed yet' where id = " + id,
		"update audits set progress = 99 where id = " + other,
		"begin; update audits set progress = 66 where id = " + id + "; rollback",
		"begin; update audits set progress = 67 where id = " + id + "; update audits set progress = 10 where id = " + id + "; commit",
	} {
		db.SQL(t, statement)
	}
	db.SQL(t, "update audits set progress = 11 where id = "+id)
	s.WantEvent(t, `{"audit_id":1,"status":"running","progress":11}`)
	// Each transaction shows its end, not its steps.
	db.SQL(t, "begin; update audits set progress = 12; update audits set progress = 13; update audits set status = 'failed', error = 'done for'; commit")
	s.WantEvent(t, `{"audit_id":1,"status":"failed","progress":13,"error":"done for"}`)
	s.Ended(t)
}
