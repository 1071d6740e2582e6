package main

import (
	"cmp"
	"context"
	"fmt"

	"auditstream/internal/dsn"
	"auditstream/internal/pgnotify"
	"auditstream/internal/pgnotify/redisnotify"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

type redisFlags struct {
	RedisURL string `name:"redis-url" env:"REDIS_URL" placeholder:"URL" default:"redis://127.0.0.1:6379/0" help:"Redis of SSE_SOURCE=redis and of relay: redis://user:password@host:6379/0, with rediss for TLS."`
}

// relayedFlags are flags of serve only.
type relayedFlags struct {
	RedisRelay choice `name:"redis-relay" env:"REDIS_RELAY" default:"auto" choices:"auto on" help:"Whether /readyz says up only while a relay is heard on Redis: on, always; auto, once one has been heard, so that none need exist."`
}

// options never quotes the URL in an error, because it holds a password.
func (f redisFlags) options() (*redis.Options, error) {
	if err := dsn.LookAtRedis(f.RedisURL); err != nil {
		return nil, usageError{fmt.Errorf("REDIS_URL is %w", err)}
	}
	options, err := redisnotify.ParseURL(f.RedisURL)
	if err != nil {
		return nil, usageError{fmt.Errorf("REDIS_URL is %w", err)}
	}
	return options, nil
}

type relayCmd struct {
	databaseFlags `embed:""`
	listenFlags   `embed:""`
	redisFlags    `embed:""`
	AdminAddr     string `env:"ADMIN_ADDR" default:"127.0.0.1:9091" help:"Address of /metrics, /healthz and /readyz; off: none."`
	logFlags      `embed:"" group:"Log"`
}

func (c *relayCmd) Help() string {
	return `Listens to PostgreSQL once and publishes what it hears to Redis, for instances of serve with SSE_SOURCE=redis: however many
there are, PostgreSQL has one listener. Run it with the environment of serve. A second one does no harm.`
}

func (c *relayCmd) Run(ctx context.Context, std streams) error {
	if err := c.databaseFlags.check(); err != nil {
		return err
	}
	logger := c.logFlags.logger(std.err)
	options, err := c.redisFlags.options()
	if err != nil {
		return err
	}
	pool, err := openPool(ctx, c.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	listenConn, err := parseDatabaseURL("DATABASE_LISTEN_URL", cmp.Or(c.DatabaseListenURL, c.DatabaseURL))
	if err != nil {
		return err
	}
	logConnectionWarnings(logger, c.DatabaseURL, c.DatabaseListenURL)
	for name, url := range map[string]string{"DATABASE_URL": c.DatabaseURL, "DATABASE_LISTEN_URL": cmp.Or(c.DatabaseListenURL, c.DatabaseURL)} {
		if err := checkParameters(ctx, name, url); err != nil {
			return err
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(buildInfo(), collectors.NewGoCollector(liveHeap), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	publisher, err := redisnotify.NewPublisher(redisnotify.PublisherConfig{Redis: options, Logger: logger, Registerer: registry})
	if err != nil {
		return err
	}
	listener, err := pgnotify.NewListener(pgnotify.ListenerConfig{
		Source: pgnotify.NewPostgres(listenConn, pool), Sink: publisher, Logger: logger, Registerer: registry,
	})
	if err != nil {
		return err
	}
	admin, err := listenRelayAdmin(ctx, adminAddr(c.AdminAddr))
	if err != nil {
		return err
	}
	logger.Info("relaying", "admin_addr", admin.String(), "version", version())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return publisher.Run(ctx, listener.Up) })
	group.Go(func() error { return listener.Run(ctx) })
	group.Go(func() error { return admin.run(ctx, registry, listener.Up, publisher.Up, logger) })
	err = group.Wait()
	logger.Info("stopped")
	return err
}
