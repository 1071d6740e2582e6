package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// sqlConn is what package sql works on.
type sqlConn = *pgx.Conn

const connectTimeout = 5 * time.Second

// parseDatabaseURL never quotes its input in an error: it holds a password.
func parseDatabaseURL(name, url string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil || strings.TrimSpace(url) == "" { // of nothing pgx makes the local server
		return nil, usageError{fmt.Errorf("%s is not a connection string (not shown, it may hold a password); give one like postgres://user:password@host:5432/database", name)}
	}
	// Settings of the pool are for openPool; to the server they would be parameters that it does not know.
	maps.DeleteFunc(cfg.RuntimeParams, func(key, _ string) bool { return strings.HasPrefix(key, "pool_") })
	speakUTF8(cfg)
	return cfg, nil
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
	if _, err := parseDatabaseURL("DATABASE_URL", url); err != nil {
		return nil, err
	}
	cfg, err := pgxpool.ParseConfig(url)
	// pgxpool panics at a period of 0, and makes as many goroutines as it is asked for connections.
	if err != nil || cfg.HealthCheckPeriod <= 0 || cfg.MinConns < 0 || cfg.MinIdleConns < 0 || cfg.MinConns > cfg.MaxConns || cfg.MinIdleConns > cfg.MaxConns {
		return nil, usageError{errors.New("DATABASE_URL holds an invalid pool setting (not shown, it may hold a password); give pool_max_conns from 1, " +
			"pool_min_conns and pool_min_idle_conns from 0 to that, and durations like 30s, for pool_health_check_period longer than 0")}
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

// explain adds to an error of the database what the operator can do about it. final says that waiting will not help.
func explain(err error) (explained error, final bool) {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return fmt.Errorf("%w (is PostgreSQL running there? Start it, or correct host and port in DATABASE_URL)", err), false
	}
	switch pgErr.Code {
	case "28P01", "28000":
		return fmt.Errorf("%w (check user and password in DATABASE_URL)", err), true
	case "3D000":
		return fmt.Errorf("%w (check the database's name in DATABASE_URL)", err), true
	case "42P01", "3F000":
		return fmt.Errorf("%w (auditstream is not installed in this database: run auditstream install --table YOUR_TABLE)", err), false
	case "42501":
		return fmt.Errorf("%w (this role may not read auditstream.progress: run auditstream install --role ROLE as the table's owner)", err), false
	case "42703":
		return fmt.Errorf("%w (the view auditstream.progress lacks a column: run auditstream install again)", err), false
	}
	return err, false
}
