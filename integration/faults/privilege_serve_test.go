package faults

import (
	"net/http"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

// serve, its listener and doctor need no more than install --role grants, even where PUBLIC has nothing.
func TestPrivilegeServeNeedsNoMore(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	db.LockUp(t)
	db.WantSQL(t, "select has_database_privilege('public', current_database(), 'connect') or has_schema_privilege('public', 'public', 'usage')", "f")
	i := harness.ServeReady(t, db.Serve)
	s := i.Shown(t, "1", harness.AliceToken(t))
	for progress := 30; progress < 33; progress++ {
		db.SQL(t, "update audits set progress = "+string(rune('0'+progress/10))+string(rune('0'+progress%10)))
		s.WantProgress(t, progress)
	}
	if got := i.AskAs(t, harness.AliceToken(t), harness.StatusPath("1")); got.Status != http.StatusOK || !strings.Contains(got.Body, `"progress":32`) {
		t.Errorf("status: %d %s", got.Status, got.Body)
	}
	out := harness.RunCommand(t, []string{"DATABASE_URL=" + db.Serve, "JWT_SECRET=" + harness.JWTSecret}, "doctor")
	if strings.Contains(out, "FAIL") || !strings.Contains(out, "role "+harness.ServeRole+": no superuser, may not write the table") {
		t.Errorf("doctor:\n%s", out)
	}
	db.SQL(t, "update audits set status = 'completed'")
	harness.Equal(t, s.NextProgress(t).Status, "completed", "status")
	s.Ended(t)
	db.WantSQL(t, "select string_agg(distinct usename, ' ') from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()", harness.ServeRole)
	i.WantMetric(t, "auditstream_notifications_missed_total", 0)
}
