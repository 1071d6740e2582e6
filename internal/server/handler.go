package server

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"auditstream/internal/connpool"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// drainTimeout is how long streams and requests may take to end after ctx is done; then their connections are closed.
const drainTimeout = 8 * time.Second

// errDraining is the cause of request contexts that end at shutdown. A client that disconnects has another cause.
var errDraining = errors.New("the server is shutting down")

// Handler serves the API in any HTTP server. Its methods are safe for concurrent use, but Run is called once.
type Handler struct {
	cfg        Config
	verifier   *verifier // nil with Config.Viewer
	limit      *streamLimit
	metrics    metrics
	ready      readiness
	refusals   *refusalLimit
	pool       *connpool.Pool // nil when all streams are net/http's
	keepsAlive bool           // the pool's connections go back to net/http
	draining   atomic.Bool
	// warnOutage limits the warnings during an outage, when every request is refused; warnConnections those about an address's connections.
	warnOutage, warnConnections rate.Sometimes

	api            http.Handler
	requests       context.Context // of all requests; done, with errDraining, at shutdown
	cancelRequests context.CancelCauseFunc
	active         sync.WaitGroup // requests, of which none begins after the shutdown
	activeMu       sync.Mutex     // guards active's beginning against its end
}

// NewHandler validates the configuration, except addresses and certificate, which it does not use, and fetches the signing keys of JWKSURL.
// ctx also bounds later refreshes of the keys, so it must live as long as the handler. The caller calls Run or Close.
func NewHandler(ctx context.Context, cfg Config) (*Handler, error) {
	h, err := newHandler(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if !cfg.NoHijack {
		h.pool = connpool.New(connpool.Config{Write: writeConn, Logger: h.cfg.Logger})
	}
	return h, nil
}

func newHandler(ctx context.Context, cfg Config) (*Handler, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	h := &Handler{
		cfg:             cfg,
		warnOutage:      rate.Sometimes{First: 3, Interval: time.Second},
		warnConnections: rate.Sometimes{First: 1, Interval: time.Minute},
		limit:           newStreamLimit(cfg.MaxStreams, cfg.MaxStreamsPerUser),
		refusals:        newRefusalLimit(cfg.MaxRefusedPerUser, cfg.MaxRefusedPerAddress),
	}
	if cfg.Viewer == nil {
		var err error
		if h.verifier, err = newVerifier(ctx, cfg.Auth, cfg.Logger); err != nil {
			return nil, err
		}
	}
	h.metrics = newMetrics(cfg.Registerer, cfg.MaxStreams)
	h.requests, h.cancelRequests = context.WithCancelCause(context.WithoutCancel(ctx))
	h.api = h.routes()
	return h, nil
}

// Close releases a handler whose Run is never called.
func (s *Handler) Close() {
	if s.pool != nil {
		s.pool.Close()
	}
}

// ServeHTTP serves the API. A stream lasts until its own end, or until the context of its request or of Run is done. Once Run's is done,
// streams are told to reconnect later, and other requests are answered 503.
func (s *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	if s.enter() {
		defer s.active.Done()
	} else {
		cancel(errDraining)
	}
	defer context.AfterFunc(s.requests, func() { cancel(errDraining) })()
	s.api.ServeHTTP(w, r.WithContext(ctx))
}

// enter counts a request, so that the shutdown waits for it. It returns false during the shutdown: the request is then refused.
func (s *Handler) enter() bool {
	s.activeMu.Lock()
	defer s.activeMu.Unlock()
	if s.draining.Load() {
		return false
	}
	s.active.Add(1)
	return true
}

// Run serves the streams on hijacked connections until ctx is done. Then it ends every stream with a random time to reconnect after, and
// returns nil within seconds.
func (s *Handler) Run(ctx context.Context) error {
	var group errgroup.Group
	if s.pool != nil {
		group.Go(s.pool.Run)
	}
	<-ctx.Done()
	stop, done := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer done()
	s.drain()
	s.waitForRequests(stop)
	if s.pool != nil {
		s.pool.End(stop) // after waitForRequests: a request under way may still hijack its connection
	}
	return group.Wait()
}

// drain ends all streams; http.Server.Shutdown alone would wait for them for ever.
func (s *Handler) drain() {
	s.activeMu.Lock()
	s.draining.Store(true)
	s.activeMu.Unlock()
	s.cancelRequests(errDraining)
	if s.pool != nil {
		s.pool.Drain()
	}
}

// waitForRequests waits for the requests under way, until ctx is done at most.
func (s *Handler) waitForRequests(ctx context.Context) {
	ended := make(chan struct{})
	go func() { s.active.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// retryDelay returns a random time to reconnect after, between a half and one and a half of SSE_RETRY_MS, so that clients which are
// disconnected together do not reconnect together.
func (s *Handler) retryDelay() time.Duration {
	return s.cfg.Retry/2 + rand.N(s.cfg.Retry)
}
