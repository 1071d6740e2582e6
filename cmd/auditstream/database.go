package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"auditstream/internal/dsn"
	"auditstream/internal/service"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// sqlConn is what package sql works on.
type sqlConn = *pgx.Conn

const (
	connectTimeout = 5 * time.Second
	// maxConnIdle is after how long a connection of the pool is closed that nobody needs. Gateways drop one without a word, from 4 minutes
	// on, and whoever needs it next would wait to find out.
	maxConnIdle = 3 * time.Minute
)

// parseDatabaseURL never quotes its input in an error: it holds a password.
func parseDatabaseURL(name, url string) (*pgx.ConnConfig, error) {
	cfg, _, err := dsn.Parse(name, url)
	if err != nil {
		return nil, usageError{err}
	}
	speakUTF8(cfg.ConnConfig)
	return cfg.ConnConfig, nil
}

// leftOut are the warnings of connection strings that can be parsed, the second of which may be empty.
func leftOut(url, listenURL string) []string {
	_, warnings, _ := dsn.Parse("DATABASE_URL", url)
	if listenURL != "" {
		_, more, _ := dsn.Parse("DATABASE_LISTEN_URL", listenURL)
		warnings = append(warnings, more...)
	}
	return warnings
}

func logLeftOut(logger *slog.Logger, url, listenURL string) {
	for _, warning := range leftOut(url, listenURL) {
		logger.Warn("a part of the connection string is left out", "what", warning)
	}
}

// openPool prepares the ordinary connections, without connecting yet.
func openPool(ctx context.Context, url string) (*pgxpool.Pool, error) {
	cfg, err := poolConfig(url)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	return pool, nil
}

func poolConfig(url string) (*pgxpool.Config, error) {
	cfg, _, err := dsn.Parse("DATABASE_URL", url)
	if err != nil {
		return nil, usageError{err}
	}
	if !strings.Contains(url, "pool_max_conn_idle_time") {
		cfg.MaxConnIdleTime = maxConnIdle
	}
	cfg.ShouldPing = func(ctx context.Context, params pgxpool.ShouldPingParams) bool {
		return ctx.Value(service.SkipPing{}) == nil && params.IdleDuration > time.Second // as pgxpool itself does
	}
	conn := cfg.ConnConfig
	if !setsExecMode(url) {
		// Prepared statements stay behind on a connection that a transaction pooler hands to somebody else, so the mode that
		// works everywhere is the default, and the store prepares its reads once there has proved to be none.
		conn.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = "auditstream"
	}
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = connectTimeout
	}
	if cfg.PingTimeout == 0 {
		// After a network failure idle connections are dead without knowing it: each may cost a read this long, not all
		// the time that the read has.
		cfg.PingTimeout = time.Second
	}
	// Behind a transaction pooler a connection of the pool may inherit another one's LISTEN; without a handler pgx would
	// keep those notifications for ever.
	conn.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) {}
	leaveFencedServer(cfg)
	speakUTF8(conn)
	return cfg, nil
}

// speakUTF8 has the server convert: Go's texts are UTF-8, and without this a database of another encoding sends its own. With
// libpq's variable or the URL's parameter an operator could only break it.
func speakUTF8(cfg *pgx.ConnConfig) { cfg.RuntimeParams["client_encoding"] = "UTF8" }

// setsExecMode reports whether the operator says how queries are sent.
func setsExecMode(url string) bool { return strings.Contains(url, "default_query_exec_mode") }

// connect opens one connection for a command that runs once.
func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	cfg, err := parseDatabaseURL("DATABASE_URL", url)
	if err != nil {
		return nil, err
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "auditstream"
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		err, _ = explain(err)
		return nil, fmt.Errorf("cannot connect to the database (DATABASE_URL): %w", err)
	}
	return conn, nil
}

// checkParameters connects once where a connection string sets parameters of the server's, and returns the error of one that it refuses:
// no later attempt would end otherwise. Any other error is for those.
func checkParameters(ctx context.Context, name, url string) error {
	cfg, err := parseDatabaseURL(name, url)
	if err != nil {
		return err
	}
	delete(cfg.RuntimeParams, "client_encoding") // ours
	if len(cfg.RuntimeParams) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err == nil {
		return conn.Close(ctx)
	}
	if err, ok := refusedParameter(err); ok {
		return fmt.Errorf("%s: %s", name, anonymous(err.Error()))
	}
	return nil
}

// refusedParameter adds to an error of connecting which parameter the server or the pooler refuses, and whether it does.
func refusedParameter(err error) (error, bool) {
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !connecting || !ok {
		return err, false
	}
	// An unknown parameter, a bad value, one that no session may set, and options that are none; PgBouncer has no code for it.
	denied := pgErr.Code == "42501" && strings.Contains(pgErr.Message, "permission denied to set") // a parameter, or a role by one
	if slices.Contains([]string{"42704", "22023", "55P02", "42601"}, pgErr.Code) || denied || strings.Contains(pgErr.Message, "unsupported startup parameter") {
		return fmt.Errorf("%w (a parameter of the connection string is refused: correct it, or leave it out)", err), true
	}
	return err, false
}

// explain adds to an error of the database what the operator can do about it. final says that waiting will not help.
func explain(err error) (explained error, final bool) {
	if err, refused := refusedParameter(err); refused {
		return err, true
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return fmt.Errorf("%w (is PostgreSQL running there? Start it, or correct host and port in DATABASE_URL)", err), false
	}
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	switch pgErr.Code {
	case "28P01", "28000":
		return fmt.Errorf("%w (check user and password in DATABASE_URL)", err), true
	case "3D000":
		return fmt.Errorf("%w (check the database's name in DATABASE_URL)", err), true
	case "42P01", "3F000":
		return fmt.Errorf("%w (auditstream is not installed in this database: run auditstream install --table YOUR_TABLE)", err), false
	case "42501":
		if connecting {
			return fmt.Errorf("%w (the role of DATABASE_URL may not connect: grant connect on the database to it)", err), false
		}
		return fmt.Errorf("%w (this role may not read auditstream.progress: run auditstream install --role ROLE as the table's owner)", err), false
	case "42703":
		return fmt.Errorf("%w (the view auditstream.progress lacks a column: run auditstream install again)", err), false
	}
	return err, false
}
