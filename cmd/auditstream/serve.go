package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"

	"auditstream/internal/admin"
	"auditstream/internal/server"
	"auditstream/internal/server/web"
	"auditstream/internal/service"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
)

// liveHeap adds go_gc_heap_live_bytes: reachable memory, without garbage. Only this metric tells a leak from a busy hour.
var liveHeap = collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/gc/heap/live:bytes$`)})

type serveCmd struct {
	databaseFlags `embed:""`
	listenFlags   `embed:""`
	redisFlags    `embed:""`
	relayedFlags  `embed:""`
	streamFlags   `embed:"" group:"Streams"`
	httpFlags     `embed:"" group:"HTTP"`
	authFlags     `embed:"" group:"Tokens"`
	cacheFlags    `embed:"" group:"Tokens"`
	logFlags      `embed:"" group:"Log"`
	accessFlags   `embed:"" group:"Log"`
	envFileFlags  `embed:""`

	processorFlags    `embed:""`
	startInstallFlags `embed:""`
}

func (c *serveCmd) Run(ctx context.Context, std streams, current *configuration, again reparse) error {
	if err := c.databaseFlags.check(); err != nil {
		return err
	}
	c.processorFlags.apply()
	if c.DatabaseListenURL != "" {
		if err := checkParameters(ctx, "DATABASE_LISTEN_URL", c.DatabaseListenURL); err != nil {
			return err
		}
	}
	var page http.Handler
	if c.SSEUI == "on" {
		page = web.Page(web.Options{Cookie: c.SSEAuthCookie != ""})
	}
	logger, level := c.leveled(std.err)
	logConnectionWarnings(logger, c.DatabaseURL, c.DatabaseListenURL)
	r := &reloader{parse: again, current: current, level: level, logger: logger}
	r.catchSIGHUP()
	return serve(ctx, c, logger, page, r, func(*server.Server) {})
}

// serve runs the service until ctx is done. page serves the paths outside the API, nil: 404. reloads handles SIGHUP, nil: nothing does.
// listening is called once the addresses are bound.
func serve(ctx context.Context, c *serveCmd, logger *slog.Logger, page http.Handler, reloads *reloader, listening func(*server.Server)) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(buildInfo(), collectors.NewGoCollector(liveHeap), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	tracer, endTracing, err := tracing(ctx, logger)
	if err != nil {
		return err
	}
	defer endTracing()

	pool, err := openPool(ctx, c.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	all, err := c.service(pool, tracer, logger, registry)
	if err != nil {
		return err
	}
	cfg := c.server()
	all.Serve(&cfg)
	cfg.Page, cfg.Logger, cfg.Registerer, cfg.Admin, cfg.Tracer = page, logger, registry, admin.Routes(registry), tracer
	srv, err := server.New(ctx, cfg)
	if err != nil {
		return usageError{err}
	}

	warnOpenFiles(logger, int(c.SSEMaxStreams))
	if err := c.installAtStart(ctx, c.DatabaseURL, logger); err != nil {
		return unlessStopped(ctx, err)
	}
	if err := checkDatabase(ctx, all.Ping, logger); err != nil {
		return err
	}
	if err := srv.Listen(ctx); err != nil {
		return err
	}
	logger.Info("serving", "addr", srv.Addr().String(), "admin_addr", boundAdminAddr(srv), "version", version())
	listening(srv)

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return all.Run(ctx) })
	group.Go(func() error { return srv.Run(ctx) })
	if reloads != nil {
		reloads.server = srv
		group.Go(func() error { return reloads.run(ctx) })
	}
	err = group.Wait()
	logger.Info("stopped")
	return err
}

// service makes the service as the flags say.
func (c *serveCmd) service(pool *pgxpool.Pool, tracer trace.TracerProvider, logger *slog.Logger, registry prometheus.Registerer) (*service.Service, error) {
	conn, err := parseDatabaseURL("DATABASE_LISTEN_URL", cmp.Or(c.DatabaseListenURL, c.DatabaseURL))
	if err != nil {
		return nil, err
	}
	hints, err := c.hints()
	if err != nil {
		return nil, err
	}
	return service.New(service.Config{
		Pool: pool, Listen: conn, Hints: hints,
		Prepared:     c.DatabaseListenURL == "" && !setsExecMode(c.DatabaseURL),
		PollInterval: time.Duration(c.SSEFallbackDBInterval), NoFlood: c.SSEPollHot == "off", MaxRowBytes: int(c.SSEMaxRowBytes),
		Tracer: tracer, Logger: logger, Registerer: registry,
	})
}

// server returns the server's Config as the flags say, without its logger, metrics and service.
func (c *serveCmd) server() server.Config {
	auth := c.authFlags.config()
	auth.MaxCached = int(c.JWTCachedTokens)
	for i, origin := range c.CORSAllowedOrigins { // a blank after the comma is common
		c.CORSAllowedOrigins[i] = strings.TrimSpace(origin)
	}
	return server.Config{
		Addr:                     c.HTTPAddr,
		AdminAddr:                adminAddr(c.AdminAddr),
		CertFile:                 c.TLSCertFile,
		KeyFile:                  c.TLSKeyFile,
		Auth:                     auth,
		AuthCookie:               c.SSEAuthCookie,
		AccessLog:                c.AccessLog == "on",
		CORSOrigins:              c.CORSAllowedOrigins,
		MaxDuration:              time.Duration(c.SSEMaxDuration),
		Heartbeat:                time.Duration(c.SSEHeartbeat),
		Retry:                    time.Duration(c.SSERetry),
		NoHijack:                 c.SSEHijack == "off",
		MaxStreams:               int(c.SSEMaxStreams),
		MaxStreamsPerUser:        int(c.SSEMaxStreamsPerUser),
		MaxConnectionsPerAddress: int(c.HTTPMaxConnsPerAddress),
		MaxRefusedPerUser:        int(c.SSEMaxRefusedPerUser),
		MaxRefusedPerAddress:     int(c.HTTPMaxRefusedPerAddr),
	}
}

// checkDatabase reads from the database once. An error that waiting cannot mend is returned and ends the program. Any other is logged, and
// the service starts: the database may start later, or install may run later.
func checkDatabase(ctx context.Context, ping func(context.Context) error, logger *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	err := ping(ctx)
	if err == nil {
		return nil
	}
	err, final := explain(err)
	if final {
		return errors.New(hideNames(err.Error()))
	}
	logger.Error("the database cannot be read yet, trying again", "error", err)
	return nil
}

func adminAddr(flag string) string {
	if flag == "off" {
		return ""
	}
	return flag
}

// boundAdminAddr returns the address of the metrics as it is bound, because the configured port may be 0.
func boundAdminAddr(srv *server.Server) string {
	addr := srv.AdminAddr()
	if addr == nil {
		return "off"
	}
	return addr.String()
}
