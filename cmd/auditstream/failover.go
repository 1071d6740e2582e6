package main

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// leaveFencedServer has the pool give up a connection whose server has become read-only since it was made. That is how a
// primary is fenced that lives on after a failover: its connections stay open, and what they read gets old.
// target_session_attrs is looked at when a connection is made and never again. It costs no query: PostgreSQL tells of the
// change with its answer to the next one.
//
// The listening connection follows: the canary is sent on the pool's connection to another server, and does not come back.
func leaveFencedServer(cfg *pgxpool.Config) {
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		conn.PgConn().CustomData()[readOnlyFromStart] = readOnly(conn)
		return nil
	}
	cfg.AfterRelease = func(conn *pgx.Conn) bool {
		// One that began so would be replaced by another of its kind after each query.
		return !readOnly(conn) || conn.PgConn().CustomData()[readOnlyFromStart] == true
	}
}

const readOnlyFromStart = "auditstream.read_only_from_start"

// readOnly is false where a pooler does not pass the parameter on.
func readOnly(conn *pgx.Conn) bool {
	return conn.PgConn().ParameterStatus("default_transaction_read_only") == "on"
}
