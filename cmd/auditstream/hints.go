package main

import (
	"context"
	"log/slog"

	"auditstream/pgnotify"
	"auditstream/pgnotify/redisnotify"
	"auditstream/server"
	"auditstream/store"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

type redisOptions = redis.Options

// hub is a pgnotify.Hub as the server sees it.
type hub struct{ *pgnotify.Hub }

var _ server.Hub = hub{}

// Subscribe implements [server.Hub].
func (h hub) Subscribe(ctx context.Context, keys []store.Key, wake func()) (server.Subscription, error) {
	s, err := h.Hub.Subscribe(ctx, keys, wake)
	if err != nil {
		return nil, err // and not a nil of the other type
	}
	return s, nil
}

// SubscribeOwned implements [server.Hub].
func (h hub) SubscribeOwned(ctx context.Context, viewer store.Viewer, wake func()) (server.Subscription, error) {
	s, err := h.Hub.SubscribeOwned(ctx, viewer, wake)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// hints is where a hub's come from, and all that has to run for them.
type hints struct {
	up           func() bool // they arrive
	keepsSession func() bool // a connection to DATABASE_LISTEN_URL keeps its session
	run          []func(context.Context) error
}

// listen prepares what tells the hub of changes, and writers of what is watched.
func listen(c *serveCmd, pool *pgxpool.Pool, sink *schemaWatch, logger *slog.Logger, registry prometheus.Registerer) (hints, error) {
	conn, err := parseDatabaseURL("DATABASE_LISTEN_URL", orElse(c.DatabaseListenURL, c.DatabaseURL))
	if err != nil {
		return hints{}, err
	}
	var options *redisOptions
	if c.SSESource == "redis" || c.RedisURL != "" { // a mistake is told before it is needed; dev sets none
		if options, err = c.redisFlags.options(); err != nil {
			return hints{}, err
		}
	}
	registrar := pgnotify.NewRegistrar(sink.Mark, logger)
	sink.Announce(registrar)
	registry.MustRegister(pgnotify.NewUnheld(registrar))
	cfg := pgnotify.ListenerConfig{Sink: sink, Logger: logger, Registerer: registry}
	var h hints
	if c.SSESource == "redis" {
		h, err = listenRedis(c, conn, pool, options, registrar, cfg)
	} else {
		cfg.Source = pgnotify.NewPostgres(conn, pool, registrar, logger)
		var listener *pgnotify.Listener
		if listener, err = pgnotify.NewListener(cfg); err == nil {
			h = hints{up: listener.Up, keepsSession: listener.Up, run: []func(context.Context) error{listener.Run}}
		}
	}
	h.run = append(h.run, registrar.Run)
	return h, err
}

// listenRedis prepares a listener to Redis, and the session that holds the locks.
func listenRedis(c *serveCmd, conn *pgx.ConnConfig, pool *pgxpool.Pool, options *redisOptions, registrar *pgnotify.Registrar, cfg pgnotify.ListenerConfig) (hints, error) {
	holder, err := pgnotify.NewListener(pgnotify.ListenerConfig{
		Source: pgnotify.NewHolder(conn, pool, registrar, cfg.Logger), Sink: cfg.Sink, Logger: cfg.Logger,
	})
	if err != nil {
		return hints{}, err
	}
	source := redisnotify.NewSource(options)
	cfg.Source = source
	cfg.Doubt = func() string {
		switch {
		case source.RelayDead(c.RedisRelay == "on"):
			return "no relay is heard on Redis (auditstream relay, with the same REDIS_URL)"
		case source.Relayed() && !holder.Up():
			return "a relay passes on only what the triggers are told is watched, and they cannot be told"
		}
		return ""
	}
	listener, err := pgnotify.NewListener(cfg)
	if err != nil {
		return hints{}, err
	}
	run := func(ctx context.Context) error {
		defer source.Close()
		return listener.Run(ctx)
	}
	return hints{up: listener.Up, keepsSession: holder.Up, run: []func(context.Context) error{run, holder.Run}}, nil
}
