package api

import (
	"testing"

	"auditstream/integration/harness"
)

func TestUpdateReachesTheStream(t *testing.T) { harness.OverHTTP1And2(t, testUpdateReachesTheStream) }

func testUpdateReachesTheStream(t *testing.T) {
	db := harness.NewDatabase(t)
	i := harness.Serve(t, db.Serve)
	i.WaitReady(t, "up")
	id := db.Insert(t, "status, progress, message", "'running', 25, 'Analyzing pages...'")

	s := i.Watch(t, id, harness.AliceToken(t))
	if got := s.NextProgress(t); got.Status != "running" || got.Progress != 25 {
		t.Errorf("first event: %+v, want running, 25", got)
	}
	db.SQL(t, "update audits set progress = 50, message = 'Running competitor analysis...'")
	if got := s.NextProgress(t); got.Progress != 50 {
		t.Errorf("second event: %+v, want 50", got)
	}
	db.SQL(t, "update audits set status = 'completed', progress = 100, message = null, geo_score = 78.5")
	if got, want := s.Next(t).Data, `{"audit_id":`+id+`,"status":"completed","progress":100,"geo_score":78.5}`; got != want {
		t.Errorf("last event: %s, want %s", got, want)
	}
	s.Ended(t)
}
