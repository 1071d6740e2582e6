package main

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// leaveFencedServer makes the pool close a connection whose server has become read-only since the connection was made. After a failover an old
// primary that still runs is fenced that way: its connections stay open, and they read old rows. target_session_attrs is checked only when a
// connection is made. This check costs no query, because PostgreSQL reports the change with its answer to the next one.
//
// The listening connection follows: the pool then sends the canary to the new server, so it does not come back on the old listener.
func leaveFencedServer(cfg *pgxpool.Config) {
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		conn.PgConn().CustomData()[readOnlyFromStart] = readOnly(conn)
		return nil
	}
	cfg.AfterRelease = func(conn *pgx.Conn) bool {
		// If the server was read-only from the start, a new connection would be the same, and would be closed after each query, too.
		return !readOnly(conn) || conn.PgConn().CustomData()[readOnlyFromStart] == true
	}
}

const readOnlyFromStart = "auditstream.read_only_from_start"

// readOnly reports whether the server is read-only; false if a pooler does not pass the parameter on.
func readOnly(conn *pgx.Conn) bool {
	return conn.PgConn().ParameterStatus("default_transaction_read_only") == "on"
}
