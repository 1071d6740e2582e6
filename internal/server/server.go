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
	// idleTimeout is how long a connection may wait for its next request.
	idleTimeout = 2 * time.Minute
)

// Server serves the API at addresses of its own. Its methods are safe for concurrent use, but Run is called once.
type Server struct {
	*Handler
	address *addressLimit
	// certificate is for TLS alone.
	certificate atomic.Pointer[tls.Certificate]

	public, admin net.Listener
}

// New is NewHandler with what a server needs besides.
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

// Listen binds the addresses, so that a taken port is an error at start and port 0 is known before Run. The caller calls
// Run or Close afterwards.
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
		s.keeps = true
		s.pool = connpool.New(connpool.Config{Addr: s.public.Addr(), Gone: s.address.closed, Write: writeConn, Logger: s.cfg.Logger})
	}
	return nil
}

// Close releases the addresses of a server that is not run after all.
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

// Addr is the address served on, once Listen has returned.
func (s *Server) Addr() net.Addr { return s.public.Addr() }

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
	api, admin := s.newHTTPServer(s.Handler), s.newHTTPServer(s.adminRoutes())
	api.ConnContext, api.ConnState = s.address.opened, s.address.changed

	group, ctx := errgroup.WithContext(ctx)
	if s.pool != nil {
		group.Go(func() error { return serving(api.Serve(s.pool.Listener())) })
	}
	group.Go(func() error { return serving(s.serve(api)) })
	if s.admin != nil {
		group.Go(func() error { return serving(admin.Serve(s.admin)) })
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
	l := s.address.listener(s.public)
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
