package sql_test

import (
	"context"
	"testing"
	"time"

	"auditstream/internal/pgtest"
	"auditstream/internal/sql"
)

// An install works with "\set AUTOCOMMIT off" in ~/.psqlrc: psql would open a transaction for the NOTIFY after the commit and roll it back at
// the end, and serve would learn of the install a minute later.
func TestPsqlWithoutAutocommitNotifies(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	conn := pgtest.Connect(t, dsn)
	exec(t, conn, `listen `+sql.Channel)
	pgtest.Psql(t, dsn, file(t, "audits.sql"))
	pgtest.Psql(t, dsn, "\\set AUTOCOMMIT off\n"+file(t, "install.sql"))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n, err := conn.WaitForNotification(ctx)
	if err != nil || n.Payload != "*" {
		t.Errorf("got %v, %v, want the notification *", n, err)
	}
}
