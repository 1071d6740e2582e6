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
	// Pool reads rows. The caller closes it after Run has returned.
	Pool *pgxpool.Pool
	// Listen configures direct connections for LISTEN and the locks. pgx.ParseConfig makes it.
	Listen *pgx.ConnConfig
	// Hints makes another source of notifications than PostgreSQL's NOTIFY. The second result says why the source may miss changes, ""
	// if it does not. tells reports whether writers learn from the locks what is watched. Nil: NOTIFY.
	Hints func(tells func() bool) (pgnotify.Source, func() string)
	// Prepared says that Pool and Listen connect to the same address. The first notification that comes back then proves that connections
	// keep their sessions (no transaction pooler), and from then on reads use prepared statements.
	Prepared bool
	// PollInterval is the time between two reads of all watched rows, the safety net.
	PollInterval time.Duration
	// NoFlood keeps notifications on, however many changes there are.
	NoFlood bool
	// MaxRowBytes limits the text that is shown of a row.
	MaxRowBytes int

	// Tracer receives a span for each read; nil: none are made.
	Tracer trace.TracerProvider
	Logger *slog.Logger
	// Registerer receives the metrics, those of feeds that are installed later included.
	Registerer prometheus.Registerer
}

// Service is everything between the database and the server. Its methods are safe for concurrent use, but Run is called once.
type Service struct {
	feeds     *feeds
	schema    *schemaWatch
	registrar *pgnotify.Registrar
	listener  *pgnotify.Listener
	announced func() bool // writers notify of changes to watched rows

	stopped context.Context // done once Run has returned
	stop    context.CancelFunc
}

// New prepares a service, without connecting yet.
func New(cfg Config) (*Service, error) {
	drift := newDriftWatch(cfg.Pool, cfg.Logger, cfg.Registerer)
	registrar := pgnotify.NewRegistrar(cfg.Listen, cfg.Pool, cfg.Logger)
	all := newFeeds(cfg, registrar, drift)
	if err := all.add(store.Audits); err != nil { // the default feed, until the feeds are read from the database
		return nil, err
	}
	cfg.Registerer.MustRegister(newQueueUsage(store.New(cfg.Pool, store.Audits).QueueUsage, all.Idle))
	s := &Service{feeds: all, registrar: registrar, schema: newSchemaWatch(all, cfg.Pool, cfg.Logger)}
	cfg.Registerer.MustRegister(unannouncedBuckets(registrar, s.schema))
	listen := pgnotify.ListenerConfig{Sink: s.schema, Logger: cfg.Logger, Registerer: cfg.Registerer}
	if cfg.Hints != nil { // the source's own doubt covers this: with Redis the application itself may send the hints
		listen.Source, listen.Doubt = cfg.Hints(registrar.Tells)
		s.announced = func() bool { return true }
	} else {
		listen.Source, listen.Idle = pgnotify.NewPostgres(cfg.Listen, cfg.Pool), all.Idle
		s.announced = func() bool { return registrar.Tells() || s.schema.alwaysNotifies.Load() }
	}
	s.stopped, s.stop = context.WithCancel(context.Background())
	var err error
	s.listener, err = pgnotify.NewListener(listen)
	return s, err
}

func unannouncedBuckets(registrar *pgnotify.Registrar, schema *schemaWatch) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "auditstream_unannounced_buckets",
		Help: "Buckets of keys in which somebody watches and of which writers announce nothing, because the lock is not held: the safety net finds their changes.",
	}, func() float64 {
		if schema.alwaysNotifies.Load() { // writers notify without a lock
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

// Up reports whether notifications arrive for all watched rows; while they do not, changes are found by polling.
func (s *Service) Up() bool { return s.listener.Up() && s.announced() }

// Serve sets the fields of a server's Config that this service provides.
func (s *Service) Serve(cfg *server.Config) {
	cfg.Feeds, cfg.Ping, cfg.Listening, cfg.Unreadable = s.feeds.find, s.Ping, s.Up, s.feeds.unreadable
	cfg.Drift = s.feeds.drift.Kinds
}
