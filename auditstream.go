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
	rows    *service.Service
	handler *server.Handler
	metrics *registrations
	release context.CancelFunc // stops what New has started
}

var _ http.Handler = (*Service)(nil)

// New returns a service for the database of pool, which must be the primary. It validates all options and connects to nothing but
// Options.Auth.JWKSURL. The error is a [UsageError], or that of a Registerer which has these metrics already. The caller calls Run, which
// also releases what New has taken, and closes pool after that.
func New(pool *pgxpool.Pool, o Options) (*Service, error) {
	if pool == nil {
		return nil, UsageError{"the pool is nil; give one of pgxpool.New"}
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	logger := slog.New(slog.DiscardHandler)
	if o.Logger != nil {
		logger = slog.New(optionNamesHandler{o.Logger.Handler()})
	}
	metrics := &registrations{inner: o.Registerer}
	if o.Registerer == nil {
		metrics.inner = prometheus.NewRegistry()
	}
	ctx, release := context.WithCancel(context.Background())
	s, err := build(ctx, pool, o, logger, metrics)
	if err = errors.Join(err, metrics.failure()); err != nil {
		release()
		metrics.unregister()
		if s != nil {
			s.handler.Close()
		}
		return nil, err
	}
	s.release = release
	return s, nil
}

func build(ctx context.Context, pool *pgxpool.Pool, o Options, logger *slog.Logger, metrics *registrations) (*Service, error) {
	listen := o.ListenConfig
	if listen == nil {
		listen = pool.Config().ConnConfig // a copy
	}
	cfg := o.server(logger, metrics)
	if err := cfg.Validate(); err != nil { // before anything is registered
		return nil, UsageError{optionNames.Replace(err.Error())}
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
		return nil, UsageError{optionNames.Replace(err.Error())}
	}
	return &Service{rows: rows, handler: handler, metrics: metrics}, nil
}

// ServeHTTP serves the API; see the package's documentation. Before Run has connected, while the database is unreachable, and after Run's
// context is done, a stream is answered 200 with retry:, after which browsers reconnect by themselves, and other requests are answered 503.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Run listens for changes and reads rows until ctx is done. Then it ends every stream, each with a random time to reconnect after, and
// returns nil when they have ended, within seconds. An unreachable database is no error: Run tries again for ever, and logs it.
func (s *Service) Run(ctx context.Context) error {
	defer s.metrics.unregister()
	defer s.release()
	var group errgroup.Group
	group.Go(func() error { return s.rows.Run(ctx) })
	group.Go(func() error { return s.handler.Run(ctx) })
	return group.Wait()
}

// Ready reads from the database once. The error is [ErrNotInstalled], or pgx's, wrapped. Ready does not check whether notifications arrive:
// the route /readyz says that.
func (s *Service) Ready(ctx context.Context) error { return s.rows.Ready(ctx) }
