package integration

import (
	"testing"
)

func TestUpdateReachesTheStream(t *testing.T) { overBoth(t, testUpdateReachesTheStream) }

func testUpdateReachesTheStream(t *testing.T) {
	db := newDatabase(t)
	i := serve(t, db.Serve)
	i.waitReady(t, "up")
	id := db.insert(t, "status, progress, message", "'running', 25, 'Analyzing pages...'")

	s := i.watch(t, id, alice(t))
	if got := s.nextProgress(t); got.Status != "running" || got.Progress != 25 {
		t.Errorf("first event: %+v, want running, 25", got)
	}
	db.sql(t, "update audits set progress = 50, message = 'Running competitor analysis...'")
	if got := s.nextProgress(t); got.Progress != 50 {
		t.Errorf("second event: %+v, want 50", got)
	}
	db.sql(t, "update audits set status = 'completed', progress = 100, message = null, geo_score = 78.5")
	if got, want := s.next(t).Data, `{"audit_id":`+id+`,"status":"completed","progress":100,"geo_score":78.5}`; got != want {
		t.Errorf("last event: %s, want %s", got, want)
	}
	s.ended(t)
}
