package sql_test

import (
	"context"
	"os"
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
	script, err := os.ReadFile("install.sql")
	if err != nil {
		t.Fatal(err)
	}
	audits, err := os.ReadFile("audits.sql")
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Psql(t, dsn, string(audits))
	pgtest.Psql(t, dsn, "\\set AUTOCOMMIT off\n"+string(script))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n, err := conn.WaitForNotification(ctx)
	if err != nil || n.Payload != "*" {
		t.Errorf("got %v, %v, want the notification *", n, err)
	}
}
