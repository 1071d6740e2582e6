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

// drainTimeout is how long streams and requests may take to end after the stop signal before they are cut.
const drainTimeout = 8 * time.Second

// errDraining is the cause with which request contexts end at shutdown, to tell it from a client that has gone.
var errDraining = errors.New("the server is shutting down")

// Handler is the API for whatever HTTP server there is. Its methods are safe for concurrent use, but Run is called once.
type Handler struct {
	cfg      Config
	verifier *verifier // nil with Config.Viewer
	limit    *streamLimit
	metrics  metrics
	ready    readiness
	refusals *refusalLimit
	pool     *connpool.Pool // nil when all streams are net/http's
	keeps    bool           // the pool's connections go back to net/http
	draining atomic.Bool
	// warnAway keeps an outage, in which everybody is refused, from filling the log, and warnCrowd an address.
	warnAway, warnCrowd rate.Sometimes

	api      http.Handler
	requests context.Context // of all requests; done, with errDraining, at shutdown
	goodbye  context.CancelCauseFunc
	active   sync.WaitGroup // requests, of which none begins after the shutdown
	begin    sync.Mutex     // guards active's beginning against its end
}

// NewHandler validates the configuration, of which it needs no address and no certificate, and fetches the signing keys when there
// are any to fetch; ctx bounds their later refreshes, so it must live as long as the handler. The caller calls Run or Close.
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
		cfg:       cfg,
		warnAway:  rate.Sometimes{First: 3, Interval: time.Second},
		warnCrowd: rate.Sometimes{First: 1, Interval: time.Minute},
		limit:     newStreamLimit(cfg.MaxStreams, cfg.MaxStreamsPerUser),
		refusals:  newRefusalLimit(cfg.MaxRefusedPerUser, cfg.MaxRefusedPerAddress),
	}
	if cfg.Viewer == nil {
		var err error
		if h.verifier, err = newVerifier(ctx, cfg.Auth, cfg.Logger); err != nil {
			return nil, err
		}
	}
	h.metrics = newMetrics(cfg.Registerer, cfg.MaxStreams)
	h.requests, h.goodbye = context.WithCancelCause(context.WithoutCancel(ctx))
	h.api = h.routes()
	return h, nil
}

// Close is for a handler that is not run after all.
func (s *Handler) Close() {
	if s.pool != nil {
		s.pool.Close()
	}
}

// ServeHTTP serves the API. A stream lasts until its end, ctx of its request is done, or that of Run; afterwards streams are told to
// come back later, and other requests are answered 503.
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

// enter counts a request that the shutdown waits for. Those that come during it are refused, and it does not.
func (s *Handler) enter() bool {
	s.begin.Lock()
	defer s.begin.Unlock()
	if s.draining.Load() {
		return false
	}
	s.active.Add(1)
	return true
}

// Run serves the streams that are taken from net/http until ctx is done, then ends every stream with a random time to come back after,
// and returns nil within seconds.
func (s *Handler) Run(ctx context.Context) error {
	var group errgroup.Group
	if s.pool != nil {
		group.Go(s.pool.Run)
	}
	<-ctx.Done()
	stop, done := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer done()
	s.drain()
	s.wait(stop)
	if s.pool != nil {
		s.pool.End(stop) // after the handlers, which may still begin a stream
	}
	return group.Wait()
}

// drain has streams say goodbye; http.Server.Shutdown alone would wait for them for ever.
func (s *Handler) drain() {
	s.begin.Lock()
	s.draining.Store(true)
	s.begin.Unlock()
	s.goodbye(errDraining)
	if s.pool != nil {
		s.pool.Drain()
	}
}

// wait waits for the requests under way, at most until ctx is done.
func (s *Handler) wait(ctx context.Context) {
	ended := make(chan struct{})
	go func() { s.active.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// retryDelay is a time to come back after: SSE_RETRY_MS, give or take a half at random, so that clients which were sent
// away together do not return together.
func (s *Handler) retryDelay() time.Duration {
	return s.cfg.Retry/2 + rand.N(s.cfg.Retry)
}
