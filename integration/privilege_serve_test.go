package integration

import (
	"net/http"
	"strings"
	"testing"
)

// serve, its listener and doctor need no more than install --role grants, even where PUBLIC has nothing.
func TestPrivilegeServeNeedsNoMore(t *testing.T) {
	t.Parallel()
	db := newFirstAudit(t)
	db.lockUp(t)
	if public := db.sql(t, "select has_database_privilege('public', current_database(), 'connect') or has_schema_privilege('public', 'public', 'usage')"); public != "f" {
		t.Fatal("the database is not locked up")
	}
	i := serve(t, db.Serve)
	i.waitReady(t, "up")
	s := i.watch(t, "1", alice(t))
	s.next(t)
	for progress := 30; progress < 33; progress++ {
		db.sql(t, "update audits set progress = "+string(rune('0'+progress/10))+string(rune('0'+progress%10)))
		if got := s.nextProgress(t); got.Progress != progress {
			t.Errorf("progress %d, want %d", got.Progress, progress)
		}
	}
	if got := i.ask(t, "GET", statusPath("1"), "Authorization", "Bearer "+alice(t)); got.Status != http.StatusOK || !strings.Contains(got.Body, `"progress":32`) {
		t.Errorf("status: %d %s", got.Status, got.Body)
	}
	out := command(t, []string{"DATABASE_URL=" + db.Serve, "JWT_SECRET=" + secret}, "doctor")
	if strings.Contains(out, "FAIL") || !strings.Contains(out, "role "+role+": no superuser, may not write the table") {
		t.Errorf("doctor:\n%s", out)
	}
	db.sql(t, "update audits set status = 'completed'")
	if got := s.nextProgress(t); got.Status != "completed" {
		t.Errorf("status %q, want completed", got.Status)
	}
	s.ended(t)
	if roles := db.sql(t, "select string_agg(distinct usename, ' ') from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"); roles != role {
		t.Errorf("sessions of %s, want of %s alone", roles, role)
	}
	if got := i.metric(t, "auditstream_notifications_missed_total"); got != 0 {
		t.Errorf("%v notifications missed, want none", got)
	}
}
