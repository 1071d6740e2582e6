package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"auditstream/internal/dsn"
	"auditstream/internal/nonblock"
	"auditstream/internal/service"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	connectTimeout = 5 * time.Second
	// maxConnIdle is the time after which the pool closes an idle connection. Gateways silently drop idle connections, the first after 4
	// minutes, and the next read on a dropped one would wait for its timeout.
	maxConnIdle = 3 * time.Minute
)

// parseDatabaseURL never quotes its input in an error, because it holds a password.
func parseDatabaseURL(name, url string) (*pgx.ConnConfig, error) {
	cfg, _, err := dsn.Parse(name, url)
	if err != nil {
		return nil, usageError{err}
	}
	complete(cfg.ConnConfig)
	return cfg.ConnConfig, nil
}

// connectionWarnings returns the warnings about two valid connection strings; the second may be empty.
func connectionWarnings(url, listenURL string) []string {
	_, warnings, _ := dsn.Parse("DATABASE_URL", url)
	if listenURL != "" {
		_, more, _ := dsn.Parse("DATABASE_LISTEN_URL", listenURL)
		warnings = append(warnings, more...)
	}
	return warnings
}

func logConnectionWarnings(logger *slog.Logger, url, listenURL string) {
	for _, warning := range connectionWarnings(url, listenURL) {
		logger.Warn("a part of the connection string is left out", "what", warning)
	}
}

// openPool returns the pool for reads, without connecting yet.
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
		// Behind a transaction pooler, a prepared statement would stay on a connection that another client gets next. So the default is the
		// mode that works everywhere; the store prepares its reads once it is certain that there is no such pooler.
		conn.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	conn.RuntimeParams["application_name"] = cmp.Or(conn.RuntimeParams["application_name"], "auditstream")
	conn.DialFunc = nonblock.Dial(conn.DialFunc)
	if cfg.PingTimeout == 0 {
		// After a network failure idle connections are dead, which only their use shows: each may cost a read this long, and not the read's
		// whole timeout.
		cfg.PingTimeout = time.Second
	}
	// Behind a transaction pooler a connection of the pool may get another client's LISTEN. Without a handler pgx would keep these
	// notifications in memory for ever.
	conn.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) {}
	leaveFencedServer(cfg)
	complete(conn)
	return cfg, nil
}

// complete makes the server convert texts to UTF-8, which Go's are: a database with another encoding would otherwise send its own. It
// overrides PGCLIENTENCODING and the URL's parameter, which could only break this. It also bounds the time to connect, unless the URL does.
func complete(cfg *pgx.ConnConfig) {
	cfg.RuntimeParams["client_encoding"] = "UTF8"
	cfg.ConnectTimeout = cmp.Or(cfg.ConnectTimeout, connectTimeout)
}

// setsExecMode reports whether the operator chose how queries are sent.
func setsExecMode(url string) bool { return strings.Contains(url, "default_query_exec_mode") }

// connect opens one connection, for the commands other than serve.
func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	cfg, err := parseDatabaseURL("DATABASE_URL", url)
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["application_name"] = cmp.Or(cfg.RuntimeParams["application_name"], "auditstream")
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		err, _ = explain(err)
		return nil, fmt.Errorf("cannot connect to the database (DATABASE_URL): %w", err)
	}
	return conn, nil
}

// checkParameters connects once if a connection string sets server parameters, and returns an error if the server refuses one: it would
// refuse it each time. It ignores other errors, because a later attempt may succeed.
func checkParameters(ctx context.Context, name, url string) error {
	cfg, err := parseDatabaseURL(name, url)
	if err != nil {
		return err
	}
	delete(cfg.RuntimeParams, "client_encoding") // set by complete
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
		return fmt.Errorf("%s: %s", name, hideNames(err.Error()))
	}
	return nil
}

// refusedParameter reports whether a connection error means that the server or the pooler refuses a parameter, and adds the remedy.
func refusedParameter(err error) (error, bool) {
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !connecting || !ok {
		return err, false
	}
	// An unknown parameter, a bad value, a parameter that no session may set, and invalid options; PgBouncer has no code of its own.
	denied := pgErr.Code == "42501" && strings.Contains(pgErr.Message, "permission denied to set") // a parameter, or a role by one
	if slices.Contains([]string{"42704", "22023", "55P02", "42601"}, pgErr.Code) || denied || strings.Contains(pgErr.Message, "unsupported startup parameter") {
		return fmt.Errorf("%w (a parameter of the connection string is refused: correct it, or leave it out)", err), true
	}
	return err, false
}

// explain adds the remedy to a database error. final: waiting will not help.
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
