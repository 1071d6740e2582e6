package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"auditstream/internal/connpool"

	"golang.org/x/sync/errgroup"
)

const (
	maxHeader = 16 << 10
	// headerTimeout is how long a connection may take to send the head of its request.
	headerTimeout = 5 * time.Second
	// idleTimeout is how long a connection may wait for its next request before it is closed.
	idleTimeout = 2 * time.Minute
)

// Server serves the API at addresses of its own. Its methods are safe for concurrent use, but Run is called once.
type Server struct {
	*Handler
	address *addressLimit
	// certificate is set with TLS only; Reload replaces it.
	certificate atomic.Pointer[tls.Certificate]

	public, admin net.Listener
}

// New is NewHandler for a server with addresses, and TLS if a certificate is configured.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.validateServer(); err != nil {
		return nil, err
	}
	h, err := newHandler(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s := &Server{Handler: h, address: newAddressLimit(cfg.MaxConnectionsPerAddress, h.tooManyConnections)}
	if cfg.CertFile != "" {
		pair, err := loadCertificate(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, err
		}
		s.certificate.Store(pair)
	}
	return s, nil
}

// Listen binds the addresses. So a port in use is an error at start, and the port that port 0 stands for is known before Run. The caller
// calls Run or Close afterwards.
func (s *Server) Listen(ctx context.Context) error {
	api, err := listen(ctx, "HTTP_ADDR", cmp.Or(s.cfg.Addr, defaultAddr))
	if err != nil {
		return err
	}
	s.public = api
	if s.cfg.AdminAddr != "" {
		s.admin, err = listen(ctx, "ADMIN_ADDR", s.cfg.AdminAddr)
		if err != nil {
			return errors.Join(err, api.Close())
		}
	}
	if !s.cfg.NoHijack && s.cfg.CertFile == "" {
		s.keepsAlive = true
		s.pool = connpool.New(connpool.Config{Addr: s.public.Addr(), Gone: s.address.release, Write: writeConn, Logger: s.cfg.Logger})
	}
	return nil
}

// Close releases the addresses of a server whose Run is never called.
func (s *Server) Close() error {
	err := s.public.Close()
	if s.admin != nil {
		err = errors.Join(err, s.admin.Close())
	}
	s.Handler.Close()
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

// Addr returns the public address, once Listen has returned.
func (s *Server) Addr() net.Addr { return s.public.Addr() }

// AdminAddr returns the admin address, once Listen has returned; nil if there is none.
func (s *Server) AdminAddr() net.Addr {
	if s.admin == nil {
		return nil
	}
	return s.admin.Addr()
}

// Run serves until ctx is done. Then it ends every stream with a random time to reconnect after, and returns nil within seconds. Listen
// must have been called.
func (s *Server) Run(ctx context.Context) error {
	api, admin := s.newHTTPServer(s.Handler), s.newHTTPServer(s.adminRoutes())
	api.ConnContext, api.ConnState = connContext, s.address.connState

	group, ctx := errgroup.WithContext(ctx)
	if s.pool != nil {
		group.Go(func() error { return serveError(api.Serve(s.pool.Listener())) })
	}
	group.Go(func() error { return serveError(s.serve(ctx, api, group.Go)) })
	if s.admin != nil {
		group.Go(func() error { return serveError(admin.Serve(s.admin)) })
	}
	group.Go(func() error { return s.Handler.Run(ctx) })
	group.Go(func() error {
		<-ctx.Done()
		s.drain()
		stop, done := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer done()
		return errors.Join(shutdown(stop, api), shutdown(stop, admin))
	})
	return group.Wait()
}

// newHTTPServer sets no WriteTimeout, because streams, profiles and traces take long by design.
func (s *Server) newHTTPServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		// Only a POST to /debug/pprof/symbol has a body to wait for. A stream's request has been read whole before this timeout counts.
		ReadTimeout:    10 * time.Second,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
		// Our handler answers "OPTIONS *", too.
		DisableGeneralOptionsHandler: true,
	}
}

func (s *Server) serve(ctx context.Context, api *http.Server, start func(func() error)) error {
	l := s.address.limitListener(s.public)
	if s.cfg.CertFile != "" {
		shown := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate.Load(), nil }
		api.TLSConfig = &tls.Config{GetCertificate: shown} // ServeTLS adds HTTP/2
		return api.ServeTLS(l, "", "")
	}
	if s.pool != nil {
		l = newStreamListener(ctx, l, s.Handler, start)
	}
	return api.Serve(l)
}

func serveError(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve: %w", err)
}

// shutdown closes the connections that have not ended when ctx is done: a client that does not read must not keep the process alive.
func shutdown(ctx context.Context, server *http.Server) error {
	err := server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return server.Close()
	}
	return err
}
