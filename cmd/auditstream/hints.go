package main

import (
	"context"
	"log/slog"

	"auditstream/internal/pgnotify"
	"auditstream/internal/pgnotify/redisnotify"
	"auditstream/internal/server"
	"auditstream/internal/store"

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

// sink is what a listener tells. A resync follows each install and each connection, so the registrar looks again, too.
type sink struct {
	*schemaWatch
	registrar *pgnotify.Registrar
}

var _ pgnotify.Sink = sink{}

// Resync implements [pgnotify.Sink].
func (s sink) Resync() {
	s.schemaWatch.Resync()
	s.registrar.Look()
}

// hints is where a hub's come from, and all that has to run for them.
type hints struct {
	up  func() bool // they arrive
	run []func(context.Context) error
}

// listen prepares what tells the hub of changes, and writers of what is watched.
func listen(c *serveCmd, conn *pgx.ConnConfig, pool *pgxpool.Pool, schema *schemaWatch, registrar *pgnotify.Registrar, logger *slog.Logger, registry prometheus.Registerer) (hints, error) {
	var options *redisOptions
	var err error
	if c.SSESource == "redis" || c.RedisURL != "" { // a mistake is told before it is needed; dev sets none
		if options, err = c.redisFlags.options(); err != nil {
			return hints{}, err
		}
	}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "auditstream_unannounced_buckets",
		Help: "Buckets of keys in which somebody watches and of which writers announce nothing, because the lock is not held: the safety net finds their changes.",
	}, func() float64 {
		if schema.alwaysRings.Load() { // and need not be told
			return 0
		}
		return float64(registrar.Unheld())
	}))
	h := hints{run: []func(context.Context) error{registrar.Run}}
	cfg := pgnotify.ListenerConfig{Sink: sink{schema, registrar}, Logger: logger, Registerer: registry}
	if c.SSESource == "redis" {
		source := redisnotify.NewSource(options)
		cfg.Source, cfg.Doubt = source, func() string { return doubtOf(source, c.RedisRelay == "on", registrar.Tells) }
	} else {
		cfg.Source, cfg.Idle = pgnotify.NewPostgres(conn, pool), schema.Idle // Redis does not mind
	}
	listener, err := pgnotify.NewListener(cfg)
	if err != nil {
		return hints{}, err
	}
	// Redis says so of itself, see doubtOf: hints may come from the application there.
	announced := func() bool { return c.SSESource == "redis" || registrar.Tells() || schema.alwaysRings.Load() }
	h.up, h.run = func() bool { return listener.Up() && announced() }, append(h.run, listener.Run)
	return h, nil
}

// doubtOf says why hints may not come by way of Redis although messages do.
func doubtOf(source *redisnotify.Source, needsRelay bool, tells func() bool) string {
	switch {
	case source.RelayDead(needsRelay):
		return "no relay is heard on Redis (auditstream relay, with the same REDIS_URL)"
	case source.Relayed() && !tells():
		return "a relay passes on only what the triggers are told is watched, and they cannot be told"
	}
	return ""
}
