package auditstream

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"auditstream/internal/server"
	"auditstream/internal/service"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// Service serves the rows of one database. All its methods are safe for concurrent use; Run is called once.
type Service struct {
	rows     *service.Service
	handler  *server.Handler
	metrics  *registrations
	giveBack context.CancelFunc // of what New began
}

var _ http.Handler = (*Service)(nil)

// New returns a service of the database that pool leads to, which must be the primary. It validates all options and connects to nothing
// but Options.Auth.JWKSURL; the error is a [UsageError], or one of a Registerer that has these metrics already. The caller calls Run,
// which also gives back what New has taken, and closes pool after that.
func New(pool *pgxpool.Pool, o Options) (*Service, error) {
	if pool == nil {
		return nil, UsageError{"the pool is nil; give one of pgxpool.New"}
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	logger := slog.New(slog.DiscardHandler)
	if o.Logger != nil {
		logger = slog.New(renamed{o.Logger.Handler()})
	}
	metrics := &registrations{inner: o.Registerer}
	if o.Registerer == nil {
		metrics.inner = prometheus.NewRegistry()
	}
	ctx, giveBack := context.WithCancel(context.Background())
	s, err := build(ctx, pool, o, logger, metrics)
	if err = errors.Join(err, metrics.failure()); err != nil {
		giveBack()
		metrics.unregister()
		if s != nil {
			s.handler.Close()
		}
		return nil, err
	}
	s.giveBack = giveBack
	return s, nil
}

func build(ctx context.Context, pool *pgxpool.Pool, o Options, logger *slog.Logger, metrics *registrations) (*Service, error) {
	listen := o.ListenConfig
	if listen == nil {
		listen = pool.Config().ConnConfig // a copy
	}
	cfg := o.server(logger, metrics)
	if err := cfg.Validate(); err != nil { // before anything is registered
		return nil, UsageError{names.Replace(err.Error())}
	}
	rows, err := service.New(service.Config{
		Pool: pool, Listen: listen, Prepared: o.ListenConfig == nil, PollInterval: o.PollInterval, NoFlood: o.NoFlood, MaxRowBytes: o.MaxRowBytes,
		Tracer: o.TracerProvider, Logger: logger, Registerer: metrics,
	})
	if err != nil {
		return nil, err
	}
	rows.Serve(&cfg)
	handler, err := server.NewHandler(ctx, cfg)
	if err != nil {
		return nil, UsageError{names.Replace(err.Error())}
	}
	return &Service{rows: rows, handler: handler, metrics: metrics}, nil
}

// ServeHTTP serves the API; see the package's documentation. Before Run has connected, and while the database is away, a stream is told to
// come back (200 and retry:), which browsers do by themselves, and other requests are answered 503; so it is once Run's context is done.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Run hears of changes and reads rows until ctx is done; then every stream is told a random time to come back after, and Run returns nil
// once they have ended, within seconds. A database that cannot be reached is no error: it is tried again for ever, and Logger is told.
func (s *Service) Run(ctx context.Context) error {
	defer s.metrics.unregister()
	defer s.giveBack()
	var group errgroup.Group
	group.Go(func() error { return s.rows.Run(ctx) })
	group.Go(func() error { return s.handler.Run(ctx) })
	return group.Wait()
}

// Ready reads from the database once. The error is [ErrNotInstalled], or pgx's, wrapped; whether changes arrive by notification is what
// the route /readyz says.
func (s *Service) Ready(ctx context.Context) error { return s.rows.Ready(ctx) }
