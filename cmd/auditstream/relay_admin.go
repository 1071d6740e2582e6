package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"auditstream/internal/server"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// relayAdmin serves a relay's metrics and health to operators. A relay serves nothing else.
type relayAdmin struct {
	listener net.Listener // nil: the address is off
	addr     string       // as configured
}

// listenRelayAdmin binds the address, so that a port in use is an error at start. An empty address binds nothing.
func listenRelayAdmin(ctx context.Context, addr string) (relayAdmin, error) {
	if addr == "" {
		return relayAdmin{}, nil
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return relayAdmin{}, fmt.Errorf("ADMIN_ADDR: cannot listen on %s: %w (give host:port, or off)", addr, err)
	}
	return relayAdmin{l, addr}, nil
}

func (a relayAdmin) String() string {
	if a.listener == nil {
		return "off"
	}
	return a.listener.Addr().String()
}

// run serves until ctx is done, and returns nil.
func (a relayAdmin) run(ctx context.Context, metrics *prometheus.Registry, postgres, redis func() bool, logger *slog.Logger) error {
	if a.listener == nil {
		return nil
	}
	routes := http.NewServeMux()
	routes.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	routes.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, `{"status":"ok"}`) })
	routes.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		listens, publishes := postgres(), redis()
		status, state := http.StatusOK, "ready"
		if !listens || !publishes {
			status, state = http.StatusServiceUnavailable, "unavailable"
		}
		answer(w, status, fmt.Sprintf(`{"status":%q,"listener":%q,"redis":%q}`, state, upOrDown(listens), upOrDown(publishes)))
	})
	admin := &http.Server{
		Handler: notForPages(a.addr, routes), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = admin.Close() }) // without waiting for answers under way
	defer stop()
	if err := admin.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve ADMIN_ADDR: %w", err)
	}
	return nil
}

// notForPages refuses foreign web pages, as server.Server does at its admin address.
func notForPages(addr string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if server.ForeignPage(addr, r) {
			answer(w, http.StatusMisdirectedRequest, `{"error":"The operators' address is not for web pages: ask by IP address, or by the host of ADMIN_ADDR"}`)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // fails if the client has disconnected
}

func upOrDown(up bool) string {
	if up {
		return "up"
	}
	return "down"
}
