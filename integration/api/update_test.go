package api

import (
	"testing"

	"auditstream/integration/harness"
)

// An update reaches the stream, literally as the contract has it.
func TestUpdateReachesTheStream(t *testing.T) { harness.OverHTTP1And2(t, testUpdateReachesTheStream) }

func testUpdateReachesTheStream(t *testing.T) {
	db, i := harness.ServeNew(t)
	id := db.Insert(t, "status, progress, message", "'running', 25, 'Analyzing pages...'")
	s := i.Watch(t, id, harness.AliceToken(t))
	s.WantEvent(t, `{"audit_id":1,"status":"running","progress":25,"message":"Analyzing pages..."}`)
	db.SQL(t, "update audits set progress = 50, message = 'Running competitor analysis...'")
	s.WantEvent(t, `{"audit_id":1,"status":"running","progress":50,"message":"Running competitor analysis..."}`)
	db.SQL(t, "update audits set status = 'completed', progress = 100, message = null, geo_score = 78.5")
	// The ids are those of every version of the program: the first 8 bytes of the SHA-256 of data.
	s.WantWhole(t, `: heartbeat every 30 s

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

`)
	if harness.OverHTTP2(t) {
		return // what follows are HTTP/1.1's bytes
	}
	head, body := exchange(t, i, "GET "+harness.StreamPath(id)+" HTTP/1.1\r\nHost: localhost\r\nAuthorization: bearer "+harness.AliceToken(t)+"\r\n\r\n")
	if want := "HTTP/1.1 200 OK\r\nCache-Control: no-cache, no-store, no-transform\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked"; head != want {
		t.Errorf("head of the answer\n%s\nwant\n%s", head, want)
	}
	// Connecting to an audit that has ended: its state, and the end.
	if want := ": heartbeat every 30 s\n\nretry: 5000\nevent: message\nid: 95922ea8e7dc0642\ndata: {\"audit_id\":1,\"status\":\"completed\",\"progress\":100,\"geo_score\":78.5}\n\n"; body != want {
		t.Errorf("stream of an audit that has ended\n%s\nwant\n%s", body, want)
	}
}
