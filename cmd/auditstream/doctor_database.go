package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"auditstream/internal/service"
	"auditstream/internal/sql"
	"auditstream/internal/store"

	"github.com/jackc/pgx/v5"
)

func (d *doctor) databaseURL(context.Context) []finding {
	if err := d.cmd.databaseFlags.check(); err != nil {
		return []finding{fail("", "%v", err)}
	}
	cfg, err := parseDatabaseURL("DATABASE_URL", d.cmd.DatabaseURL)
	if err != nil {
		return []finding{fail("", "%v", err)}
	}
	findings := []finding{ok("DATABASE_URL: database %s at %s as %s", cfg.Database, strings.Join(servers(cfg), " or "), cfg.User)}
	for _, warning := range connectionWarnings(d.cmd.DatabaseURL, d.cmd.DatabaseListenURL) {
		findings = append(findings, warn("", "%s", warning))
	}
	return findings
}

// servers returns the servers that a URL names, in its order. pgx's fallbacks have a server twice, with and without TLS.
func servers(cfg *pgx.ConnConfig) []string {
	all := []string{net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port)))}
	for _, other := range cfg.Fallbacks {
		addr := net.JoinHostPort(other.Host, strconv.Itoa(int(other.Port)))
		if !slices.Contains(all, addr) {
			all = append(all, addr)
		}
	}
	return all
}

func (d *doctor) connection(ctx context.Context) []finding {
	start := time.Now()
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		err, _ = explain(err)
		return []finding{fail("The checks of the database were left out.", "no connection: %v", err)}
	}
	defer conn.Release()
	connected := time.Since(start)
	start = time.Now()
	if err := conn.Ping(ctx); err != nil {
		return []finding{unanswered("connection", err)}
	}
	to := ""
	if cfg := d.pool.Config().ConnConfig; len(servers(cfg)) > 1 {
		to = " to " + conn.Conn().PgConn().Conn().RemoteAddr().String()
	}
	return []finding{ok("connected%s in %v; a round trip takes %v", to, roundDuration(connected), roundDuration(time.Since(start)))}
}

// roundDuration rounds a duration for display.
func roundDuration(d time.Duration) time.Duration {
	if d > 10*time.Millisecond {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}

// listenBug maps each major version to the first minor version without the bug that makes LISTEN fail for ever with "could not access status
// of transaction" (fixed by PostgreSQL's commit 8eeb4a0f7c).
var listenBug = map[int]int{14: 21, 15: 16, 16: 12, 17: 8, 18: 2}

func (d *doctor) version(ctx context.Context) []finding {
	var number int
	var text string
	err := d.pool.QueryRow(ctx, `select current_setting('server_version_num')::int, current_setting('server_version')`).
		Scan(&number, &text)
	if err != nil {
		return []finding{unanswered("version", err)}
	}
	return []finding{judgeVersion(number, text)}
}

func judgeVersion(number int, text string) finding {
	major, minor := number/10000, number%10000
	switch fixed, known := listenBug[major]; {
	case major < 14:
		return fail("Upgrade to PostgreSQL 14 or later.", "PostgreSQL %s is too old", text)
	case known && minor < fixed:
		return warn(fmt.Sprintf("Upgrade to %d.%d or later.", major, fixed),
			`PostgreSQL %s has a bug by which LISTEN can fail after a VACUUM ("could not access status of transaction")`, text)
	}
	return ok("PostgreSQL %s", text)
}

func (d *doctor) primary(ctx context.Context) []finding {
	var standby bool
	if err := d.pool.QueryRow(ctx, `select pg_is_in_recovery()`).Scan(&standby); err != nil {
		return []finding{unanswered("primary or standby", err)}
	}
	if standby {
		return []finding{fail("Let DATABASE_URL lead to the primary.",
			"this server is a standby: it cannot LISTEN, and what it shows lags behind")}
	}
	return []finding{ok("this server is the primary")}
}

func (d *doctor) role(ctx context.Context) []finding {
	var name string
	var super bool
	var writes []string
	err := d.pool.QueryRow(ctx, `
		select current_user, r.rolsuper, array(
			select distinct right_name from pg_trigger t join pg_proc p on p.oid = t.tgfoid
				join pg_namespace n on n.oid = p.pronamespace
				cross join unnest('{insert,update,delete,truncate}'::text[]) right_name
			where n.nspname = 'auditstream' and has_table_privilege(t.tgrelid, right_name)
			order by right_name)
		from pg_roles r where r.rolname = current_user`).Scan(&name, &super, &writes)
	switch {
	case err != nil:
		return []finding{unanswered("role", err)}
	case super:
		return []finding{warn("Serve with a role of its own: create role NAME login password '...', then auditstream install --role NAME.",
			"role %s is a superuser; serve only needs to read auditstream.progress", name)}
	case len(writes) > 0:
		return []finding{ok("role %s: no superuser, but it may also %s the table's rows", name, strings.Join(writes, ", "))}
	}
	return []finding{ok("role %s: no superuser, may not write the table", name)}
}

func (d *doctor) installation(ctx context.Context) []finding {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return []finding{unanswered("view", err)}
	}
	defer conn.Release()
	d.status, err = sql.Inspect(ctx, conn.Conn())
	if err == nil {
		d.adopted, err = sql.Feeds(ctx, conn)
	}
	if err != nil {
		return []finding{unanswered("view", err)}
	}
	if !d.hasAudits() {
		return nil
	}
	if d.status.View != nil {
		return []finding{fail("", "view: %v", d.status.View)}
	}
	table := cmp.Or(service.Plain(d.status.Table), "several tables")
	if d.status.Super {
		return []finding{ok("view auditstream.progress of %s: columns and types are right; it is read with the DATABASE_URL of serve alone, not as a superuser", table)}
	}
	if _, err := store.New(conn, store.Audits).Rows(ctx, nil); err != nil { // serve's own query
		return []finding{unanswered("view", err)}
	}
	findings := []finding{ok("view auditstream.progress of %s: columns and types are right, readable", table)}
	if d.status.Index != nil {
		return append(findings, warn("", "index: %v", d.status.Index))
	}
	return append(findings, ok("index: audits are read through it"))
}

func (d *doctor) triggers(ctx context.Context) []finding {
	var function bool
	err := d.pool.QueryRow(ctx, `
		select exists (select from pg_proc p join pg_namespace n on n.oid = p.pronamespace
		               where n.nspname = 'auditstream' and p.proname in ('changed', 'notify_change'))`).Scan(&function)
	if err != nil {
		return []finding{unanswered("triggers", err)}
	}
	if !function {
		if d.status.View != nil && d.hasAudits() {
			return nil // not installed: the check installation has reported it
		}
		return []finding{warn("Run auditstream install without --no-triggers, unless that is intended.",
			"no triggers: changes are found by polling alone, every SSE_FALLBACK_DB_INTERVAL_SECONDS")}
	}
	repair := "Run auditstream install again: it repairs that."
	if d.status.Table != "" {
		repair = fmt.Sprintf("Run auditstream install --table '%s' again: it repairs that.", service.Plain(d.status.Table))
	}
	findings := d.locks(ctx)
	if !d.hasAudits() {
		return findings
	}
	for _, t := range d.status.Triggers {
		text := fmt.Sprintf("trigger %s on %s: %s", t.Name, cmp.Or(service.Plain(t.Table), "the table"), t.Enabled)
		if t.Enabled != "enabled" {
			findings = append(findings, fail(repair, "%s, so changes are found by polling alone", text))
			continue
		}
		findings = append(findings, ok("%s", text))
	}
	return findings
}

func (d *doctor) queue(ctx context.Context) []finding {
	var usage float64
	if err := d.pool.QueryRow(ctx, `select pg_notification_queue_usage()`).Scan(&usage); err != nil {
		return []finding{unanswered("NOTIFY queue", err)}
	}
	if usage > 0.1 {
		return []finding{warn("Some session that listens does not read: look for old transactions in pg_stat_activity. When the queue is full, the application's commits fail.",
			"NOTIFY queue: %.0f %% full", 100*usage)}
	}
	return []finding{ok("NOTIFY queue: %.0f %% full", 100*usage)}
}

func (d *doctor) connections(ctx context.Context) []finding {
	var most, used int
	err := d.pool.QueryRow(ctx, `
		select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
		       (select sum(numbackends)::int from pg_stat_database)`).Scan(&most, &used)
	if err != nil {
		return []finding{unanswered("connections", err)}
	}
	need := int(d.pool.Config().MaxConns) + 2 // one to listen, one to hold the locks
	if most-used < need {
		return []finding{warn("Raise max_connections, use a pooler, or add pool_max_conns=2 to DATABASE_URL.",
			"connections: %d of %d are in use; an instance of serve takes up to %d", used, most, need)}
	}
	return []finding{ok("connections: %d of %d are in use; an instance of serve takes up to %d", used, most, need)}
}

// maxSkew is how far the clocks may differ: this machine's clock decides when a token has expired.
const maxSkew = 2 * time.Second

func (d *doctor) clock(ctx context.Context) []finding {
	var skew, best time.Duration
	for i := range 3 { // the fastest answer is the most exact
		var there time.Time
		start := time.Now()
		if err := d.pool.QueryRow(ctx, `select clock_timestamp()`).Scan(&there); err != nil {
			return []finding{unanswered("clock", err)}
		}
		trip := time.Since(start)
		if i == 0 || trip < best {
			skew, best = there.Sub(start.Add(trip/2)), trip
		}
	}
	return []finding{judgeSkew(skew, best/2)}
}

// judgeSkew makes the finding from the time that the database's clock is ahead, plus or minus err.
func judgeSkew(skew, err time.Duration) finding {
	if skew.Abs() > maxSkew+err {
		direction := "ahead of"
		if skew < 0 {
			direction = "behind"
		}
		return warn("Synchronise the clocks (NTP): tokens expire by this machine's.",
			"clock: the database's is %v %s this machine's", roundDuration(skew.Abs()), direction)
	}
	return ok("clock: the database's and this machine's are %v apart, at most", roundDuration(skew.Abs()+err))
}
