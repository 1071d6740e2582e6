package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"auditstream/internal/connpool"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

const (
	// drainTimeout is how long streams and requests may take to end after the stop signal before they are cut.
	drainTimeout = 8 * time.Second
	maxHeader    = 16 << 10
	// idleTimeout is how long a connection may wait for its next request.
	idleTimeout = 2 * time.Minute
)

// errDraining is the cause with which request contexts end at shutdown, to tell it from a client that has gone.
var errDraining = errors.New("the server is shutting down")

// Server serves the API. Its methods are safe for concurrent use, but Run is called once.
type Server struct {
	cfg      Config
	verifier *verifier
	limit    *streamLimit
	address  *addressLimit
	metrics  metrics
	ready    readiness
	refusals *refusalLimit
	pool     *connpool.Pool // nil when all streams are net/http's
	draining atomic.Bool
	// certificate is for TLS alone.
	certificate atomic.Pointer[tls.Certificate]
	// warnAway keeps an outage, in which everybody is refused, from filling the log.
	warnAway rate.Sometimes

	api, admin net.Listener
}

// New validates the configuration, and fetches the signing keys when there are any to fetch; ctx bounds their later
// refreshes, so it must live as long as the server.
func New(ctx context.Context, cfg Config) (*Server, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	v, err := newVerifier(ctx, cfg.Auth, cfg.Logger)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:      cfg,
		warnAway: rate.Sometimes{First: 3, Interval: time.Second},
		verifier: v,
		limit:    newStreamLimit(cfg.MaxStreams, cfg.MaxStreamsPerUser),
		refusals: newRefusalLimit(cfg.MaxRefusedPerUser, cfg.MaxRefusedPerAddress),
		metrics:  newMetrics(cfg.Metrics, cfg.MaxStreams),
	}
	if cfg.CertFile != "" {
		pair, err := loadCertificate(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, err
		}
		s.certificate.Store(pair)
	}
	s.address = newAddressLimit(cfg.MaxConnectionsPerAddress, s.tooManyConnections)
	return s, nil
}

// Listen binds the addresses, so that a taken port is an error at start and port 0 is known before Run. The caller calls
// Run or Close afterwards.
func (s *Server) Listen(ctx context.Context) error {
	api, err := listen(ctx, "HTTP_ADDR", s.cfg.Addr)
	if err != nil {
		return err
	}
	s.api = api
	if s.cfg.AdminAddr != "" {
		s.admin, err = listen(ctx, "ADMIN_ADDR", s.cfg.AdminAddr)
		if err != nil {
			return errors.Join(err, api.Close())
		}
	}
	if !s.cfg.NoHijack && s.cfg.CertFile == "" {
		s.pool = connpool.New(connpool.Config{Addr: s.api.Addr(), Gone: s.address.closed, Write: writeConn, Logger: s.cfg.Logger})
	}
	return nil
}

// Close releases the addresses of a server that is not run after all.
func (s *Server) Close() error {
	err := s.api.Close()
	if s.admin != nil {
		err = errors.Join(err, s.admin.Close())
	}
	if s.pool != nil {
		s.pool.Close()
	}
	return err
}

func listen(ctx context.Context, name, addr string) (net.Listener, error) {
	l, err := listenConfig().Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: cannot listen on %s: %w (stop the program that has this port, or set %s to another)", name, addr, err, name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: cannot listen on %s: %w", name, addr, err)
	}
	return l, nil
}

// Addr is the address served on, once Listen has returned.
func (s *Server) Addr() net.Addr { return s.api.Addr() }

// AdminAddr is the address of the metrics, once Listen has returned; nil when there is none.
func (s *Server) AdminAddr() net.Addr {
	if s.admin == nil {
		return nil
	}
	return s.admin.Addr()
}

// Run serves until ctx is done, then ends every stream with a random time to come back after, and returns nil within
// seconds. Listen must have been called.
func (s *Server) Run(ctx context.Context) error {
	requests, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	api, admin := s.newHTTPServer(s.routes()), s.newHTTPServer(s.adminRoutes())
	api.BaseContext = func(net.Listener) context.Context { return requests }
	api.ConnContext, api.ConnState = s.address.opened, s.address.changed

	group, ctx := errgroup.WithContext(ctx)
	if s.pool != nil {
		group.Go(func() error { return serving(api.Serve(s.pool.Listener())) })
		group.Go(s.pool.Run)
	}
	group.Go(func() error { return serving(s.serve(api)) })
	if s.admin != nil {
		group.Go(func() error { return serving(admin.Serve(s.admin)) })
	}
	group.Go(func() error {
		<-ctx.Done()
		s.draining.Store(true)
		cancel(errDraining) // streams say goodbye; http.Server.Shutdown alone would wait for them for ever
		stop, done := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer done()
		if s.pool != nil {
			s.pool.Drain()
			defer s.pool.End(stop) // after api's, whose handlers may still begin a stream
		}
		return errors.Join(shutdown(stop, api), shutdown(stop, admin))
	})
	return group.Wait()
}

// newHTTPServer has no WriteTimeout: streams, profiles and traces take as long as they are meant to.
func (s *Server) newHTTPServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		// No body is worth waiting for but that of a POST to /debug/pprof/symbol. A stream's request has been read by then.
		ReadTimeout:    10 * time.Second,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
		// "OPTIONS *" is answered as everything else is.
		DisableGeneralOptionsHandler: true,
	}
}

func (s *Server) serve(api *http.Server) error {
	l := s.address.listener(s.api)
	if s.cfg.CertFile != "" {
		shown := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate.Load(), nil }
		api.TLSConfig = &tls.Config{GetCertificate: shown} // ServeTLS adds HTTP/2
		return api.ServeTLS(l, "", "")
	}
	return api.Serve(l)
}

func serving(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve: %w", err)
}

// shutdown cuts what has not ended in time: a client that does not read must not keep the process alive.
func shutdown(ctx context.Context, server *http.Server) error {
	err := server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return server.Close()
	}
	return err
}

// retryDelay is a time to come back after: SSE_RETRY_MS, give or take a half at random, so that clients which were sent
// away together do not return together.
func (s *Server) retryDelay() time.Duration {
	return s.cfg.Retry/2 + rand.N(s.cfg.Retry)
}
