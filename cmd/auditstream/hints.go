package main

import (
	"context"
	"log/slog"

	"auditstream/pgnotify"
	"auditstream/pgnotify/redisnotify"
	"auditstream/store"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

type redisOptions = redis.Options

// hints is where they come from: a pgnotify.Listener or a redisnotify.Listener.
type hints interface {
	Run(ctx context.Context) error
	Up() bool
}

var (
	_ hints = (*pgnotify.Listener)(nil)
	_ hints = (*redisnotify.Listener)(nil)
)

// listen prepares what tells the hub of changes, and all that has to run for it.
func listen(c *serveCmd, pool *pgxpool.Pool, audits *store.Store, hub *schemaWatch, logger *slog.Logger, registry prometheus.Registerer) (listener hints, run []func(context.Context) error, err error) {
	conn, err := parseDatabaseURL("DATABASE_LISTEN_URL", orElse(c.DatabaseListenURL, c.DatabaseURL))
	if err != nil {
		return nil, nil, err
	}
	var options *redisOptions
	if c.SSESource == "redis" || c.RedisURL != "" { // a mistake is told before it is needed; dev sets none
		if options, err = c.redisFlags.options(); err != nil {
			return nil, nil, err
		}
	}
	var keepsSession func() bool
	if c.SSESource == "redis" {
		instance, err := pgnotify.NewInstance(pgnotify.InstanceConfig{Conn: conn, Pool: pool, OldRegistrar: hub, Logger: logger})
		if err != nil {
			return nil, nil, err
		}
		redis, err := redisnotify.NewListener(redisnotify.ListenerConfig{
			Redis: options, Sink: hub, Again: hub.NotifyAgain, NeedRelay: c.RedisRelay == "on", Ringing: instance.Held, Logger: logger, Registerer: registry,
		})
		if err != nil {
			return nil, nil, err
		}
		listener, run, keepsSession = redis, []func(context.Context) error{redis.Run, instance.Run}, instance.Held
	} else {
		postgres, err := pgnotify.NewListener(pgnotify.ListenerConfig{Conn: conn, Pool: pool, Sink: hub, Logger: logger, Registerer: registry})
		if err != nil {
			return nil, nil, err
		}
		listener, run, keepsSession = postgres, []func(context.Context) error{postgres.Run}, postgres.Up
	}
	// A notification that came back has shown that one connection of this address keeps its session, so that all do.
	if c.DatabaseListenURL == "" && !setsExecMode(c.DatabaseURL) {
		audits.PrepareWhile(keepsSession)
	}
	return listener, run, nil
}
