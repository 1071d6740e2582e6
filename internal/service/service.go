// Package service is what serve, dev and programs that embed auditstream have in common: the feeds of a database, a hub for each,
// the listener, the locks, and the watch for what others change in the database. All wiring is here.
//
// The rule that keeps it right: nothing of it knows where its configuration came from, and it touches nothing of the process.
package service

import (
	"context"
	"log/slog"
	"time"

	"auditstream/internal/pgnotify"
	"auditstream/internal/server"
	"auditstream/internal/store"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
)

// Config configures a Service. Pool, Listen, Logger and Registerer are required; otherwise zero means the default.
type Config struct {
	// Pool is how rows are read. It is the caller's to close, after Run has returned.
	Pool *pgxpool.Pool
	// Listen is a direct connection, for LISTEN and the locks. Made by pgx.ParseConfig.
	Listen *pgx.ConnConfig
	// Hints returns where notifications come from other than from Listen, and why they may not be those of all changes, "" when they
	// are. tells reports whether writers are told what is watched. Nil: PostgreSQL's NOTIFY.
	Hints func(tells func() bool) (pgnotify.Source, func() string)
	// Prepared says that Pool leads where Listen does: a notification that came back has then shown that each connection keeps its
	// session, and statements are prepared from then on.
	Prepared bool
	// PollInterval is the time between reads of all that is watched, the safety net.
	PollInterval time.Duration
	// NoFlood has changes announced one by one however many they are.
	NoFlood bool
	// MaxRowBytes is how much text is shown of a row.
	MaxRowBytes int

	// Tracer receives a span for each read; nil: none are made.
	Tracer trace.TracerProvider
	Logger *slog.Logger
	// Registerer receives the metrics, those of feeds that are installed later included.
	Registerer prometheus.Registerer
}

// Service is all that is between a database and the server. Its methods are safe for concurrent use, but Run is called once.
type Service struct {
	feeds     *feeds
	schema    *schemaWatch
	registrar *pgnotify.Registrar
	listener  *pgnotify.Listener
	announced func() bool // writers tell of what is watched

	stopped context.Context // done once Run has returned
	stop    context.CancelFunc
}

// New prepares a service, without connecting yet.
func New(cfg Config) (*Service, error) {
	drift := newDriftWatch(cfg.Pool, cfg.Logger, cfg.Registerer)
	registrar := pgnotify.NewRegistrar(cfg.Listen, cfg.Pool, cfg.Logger)
	all := newFeeds(cfg, registrar, drift)
	if err := all.add(store.Audits); err != nil { // until the database says more
		return nil, err
	}
	cfg.Registerer.MustRegister(newQueueUsage(store.New(cfg.Pool, store.Audits).QueueUsage, all.Idle))
	s := &Service{feeds: all, registrar: registrar, schema: newSchemaWatch(all, cfg.Pool, drift, cfg.Logger)}
	cfg.Registerer.MustRegister(unannounced(registrar, s.schema))
	listen := pgnotify.ListenerConfig{Sink: sink{s.schema, registrar}, Logger: cfg.Logger, Registerer: cfg.Registerer}
	if cfg.Hints != nil { // they say so of themselves: hints may come from the application there
		listen.Source, listen.Doubt = cfg.Hints(registrar.Tells)
		s.announced = func() bool { return true }
	} else {
		listen.Source, listen.Idle = pgnotify.NewPostgres(cfg.Listen, cfg.Pool), all.Idle
		s.announced = func() bool { return registrar.Tells() || s.schema.alwaysRings.Load() }
	}
	s.stopped, s.stop = context.WithCancel(context.Background())
	var err error
	s.listener, err = pgnotify.NewListener(listen)
	return s, err
}

func unannounced(registrar *pgnotify.Registrar, schema *schemaWatch) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "auditstream_unannounced_buckets",
		Help: "Buckets of keys in which somebody watches and of which writers announce nothing, because the lock is not held: the safety net finds their changes.",
	}, func() float64 {
		if schema.alwaysRings.Load() { // and need not be told
			return 0
		}
		return float64(registrar.Unheld())
	})
}

// Run runs the service until ctx is done, and returns nil.
func (s *Service) Run(ctx context.Context) error {
	defer s.stop()
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{s.registrar.Run, s.listener.Run, s.feeds.run, s.schema.Watch} {
		group.Go(func() error { return run(ctx) })
	}
	return group.Wait()
}

// Ping reads what streams need: a view, and the right to read it. Its error is pgx's, wrapped.
func (s *Service) Ping(ctx context.Context) error { return s.feeds.ping(ctx) }

// Up reports whether notifications arrive of all that is watched; while they do not, changes are found by polling.
func (s *Service) Up() bool { return s.listener.Up() && s.announced() }

// Serve has a server show what the service hands out.
func (s *Service) Serve(cfg *server.Config) {
	cfg.Feeds, cfg.Ping, cfg.Listening, cfg.Unreadable = s.feeds.find, s.Ping, s.Up, s.feeds.unreadable
	cfg.Drift = s.feeds.drift.Kinds
}
