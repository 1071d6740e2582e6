package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// notifyTimeout is how long a notification may take before it counts as lost.
const notifyTimeout = 2 * time.Second

// listen sends a notification through DATABASE_URL and waits for it on a connection like serve's listener.
func (d *doctor) listen(ctx context.Context) []finding {
	name, url := "DATABASE_URL", d.cmd.DatabaseURL
	if d.cmd.DatabaseListenURL != "" {
		name, url = "DATABASE_LISTEN_URL", d.cmd.DatabaseListenURL
	}
	conn, err := listenConn(ctx, name, url)
	if err != nil {
		return []finding{fail("", "LISTEN: %v", err)}
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if elsewhere := d.differentDatabases(ctx, conn); elsewhere != nil {
		return []finding{*elsewhere}
	}
	channel := "auditstream_doctor_" + strings.ToLower(rand.Text()) // not serve's channel, so a running serve does not receive it
	if _, err := conn.Exec(ctx, "listen "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return []finding{refusedListen(name, err)}
	}
	took, err := d.notify(ctx, conn, channel)
	_, _ = conn.Exec(ctx, "unlisten "+pgx.Identifier{channel}.Sanitize()) // a pooler would leave the LISTEN to its next client
	switch {
	case errors.Is(err, errSilence):
		return []finding{explainSilence(d.cmd.DatabaseListenURL != "")}
	case err != nil:
		return []finding{unanswered("NOTIFY through DATABASE_URL", err)}
	}
	return []finding{ok("LISTEN on %s hears NOTIFY on DATABASE_URL, in %v", name, roundDuration(took))}
}

func listenConn(ctx context.Context, name, url string) (*pgx.Conn, error) {
	cfg, err := parseDatabaseURL(name, url)
	if err != nil {
		return nil, err
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec // see openPool
	cfg.RuntimeParams["application_name"] = "auditstream doctor"
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %s: %w", name, err)
	}
	return conn, nil
}

// differentDatabases returns a finding if the two URLs connect to different databases: a notification stays within its database.
func (d *doctor) differentDatabases(ctx context.Context, conn *pgx.Conn) *finding {
	const identity = `select current_database(), pg_postmaster_start_time()::text`
	var here, there struct{ database, started string }
	if err := d.pool.QueryRow(ctx, identity).Scan(&here.database, &here.started); err != nil {
		return new(unanswered("LISTEN", err))
	}
	if err := conn.QueryRow(ctx, identity).Scan(&there.database, &there.started); err != nil {
		return new(unanswered("LISTEN", err))
	}
	if here == there {
		return nil
	}
	return new(fail("Let both lead to the same database of the same server; a notification stays within one.",
		"LISTEN: DATABASE_LISTEN_URL leads to another database (%s) than DATABASE_URL (%s), or to another server",
		there.database, here.database))
}

func refusedListen(name string, err error) finding {
	remedy := ""
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch refused.Code {
		case "25006", "0A000":
			remedy = "Set DATABASE_LISTEN_URL to a direct connection to the primary: a standby cannot LISTEN."
		case "58P01":
			remedy = "Upgrade PostgreSQL to its latest minor version: this is a bug that was fixed in November 2025."
		}
	}
	return fail(remedy, "LISTEN on %s is refused: %v", name, err)
}

var errSilence = errors.New("the notification did not arrive")

// notify sends a notification and returns how long it took to arrive.
func (d *doctor) notify(ctx context.Context, conn *pgx.Conn, channel string) (time.Duration, error) {
	start := time.Now()
	if _, err := d.pool.Exec(ctx, `select pg_notify($1, 'hello')`, channel); err != nil {
		return 0, err
	}
	wait, cancel := context.WithTimeout(ctx, notifyTimeout)
	defer cancel()
	for {
		n, err := conn.WaitForNotification(wait)
		switch {
		case wait.Err() != nil:
			return 0, errSilence
		case err != nil:
			return 0, err
		case n.Channel == channel:
			return time.Since(start), nil
		}
	}
}

func explainSilence(own bool) finding {
	const pooler = "a transaction pooler is in the way (PgBouncer in transaction mode, Supabase's port 6543, ...)"
	if own {
		return fail("Set DATABASE_LISTEN_URL to a direct connection to the primary, around the pooler.",
			"LISTEN on DATABASE_LISTEN_URL hears nothing within %v: %s, so changes are found by polling alone", notifyTimeout, pooler)
	}
	return fail("DATABASE_LISTEN_URL is needed: set it to a direct connection to the primary. DATABASE_URL may stay as it is.",
		"LISTEN on DATABASE_URL hears nothing within %v: %s, so changes are found by polling alone", notifyTimeout, pooler)
}
