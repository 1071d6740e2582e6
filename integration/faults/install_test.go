package faults

import (
	"errors"
	"os"
	"strings"
	"testing"

	"auditstream/integration/harness"
	"auditstream/internal/localpg"
	"auditstream/internal/pgtest"
)

// Transactions that notify commit one at a time in the whole server (PreCommit_Notify, commands/async.c). One that does not end here,
// since its standby does not answer, delays neither install nor the table's writers: what serve is told comes after both.
func TestFaultInstallBehindANotificationThatDoesNotCommit(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, func(c *localpg.Config) { c.Settings = map[string]string{"fsync": "off"} })
	admin := server.DSN("postgres")
	db := harness.Database{Admin: admin + "&options=-csynchronous_commit%3Dlocal"}
	if !strings.Contains(admin, "?") {
		db.Admin = strings.Replace(db.Admin, "&", "?", 1)
	}
	script, err := os.ReadFile(harness.Path("internal/sql/install.sql"))
	harness.NoError(t, err)
	db.SQL(t, `create table audits (id bigserial primary key, url text not null, user_id text, user_email text, status text, progress int, message text,
		geo_score numeric, total_pages int, error text); insert into audits (url) values ('https://example.com')`)
	db.SQL(t, `alter system set synchronous_standby_names = 'nobody'`)
	db.SQL(t, `select pg_reload_conf()`)
	db.WaitSQL(t, `show synchronous_standby_names`, "nobody")
	waits := func(statement string) error {
		if db.SQL(t, `select 1 from pg_stat_activity where wait_event in ('SyncRep', 'object') and query like '`+statement+`%'`) == "" {
			return errors.New("nobody waits in " + statement)
		}
		return nil
	}
	ended := make(chan struct{}, 2)
	go func() {
		defer func() { ended <- struct{}{} }()
		pgtest.Psql(t, admin, `do $$ begin create table other(); perform pg_notify('other', ''); end $$`)
	}()
	harness.Eventually(t, func() error { return waits("do ") })
	go func() {
		defer func() { ended <- struct{}{} }()
		pgtest.Psql(t, db.Admin, string(script))
	}()
	harness.Eventually(t, func() error { return waits("commit") }) // of the transaction that notifies
	db.SQL(t, `set lock_timeout = '5s'; update audits set progress = 5`)
	db.SQL(t, `alter system reset synchronous_standby_names`)
	db.SQL(t, `select pg_reload_conf()`)
	for range 2 {
		<-ended
	}
}
