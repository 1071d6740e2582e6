// Package localpg runs a private PostgreSQL server from the binaries of this machine, for `auditstream dev` (the data
// stays in Dir) and for the tests (Ephemeral).
//
// The one rule: a directory belongs to one process at a time, the holder of its lock file. Only the holder may stop
// what it finds running there, so a second run refuses instead of stopping the first one's server.
package localpg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Config says where and how a server runs. The zero value of a field means its default.
type Config struct {
	Dir       string            // holds the data, the log and the password; made if missing; required
	Port      int               // on 127.0.0.1; 0: a free one
	Settings  map[string]string // further settings of the server, such as "fsync": "off"
	Ephemeral bool              // Stop removes Dir
	StandbyOf *Server           // a new Dir becomes a streaming standby of this running server; nil: a server of its own
	Logger    *slog.Logger      // nil: silent
}

// Server is a running PostgreSQL server. Its methods are not safe for concurrent use, except DSN.
type Server struct {
	log       *slog.Logger
	bin       binaries
	account   account
	ephemeral bool
	settings  map[string]string
	primary   *Server // what a new data directory is a copy of; nil: nothing

	dir      string   // what the caller named: lock and, if home is elsewhere, a pointer to it
	home     string   // data, log and password: dir, unless the account cannot enter that
	lock     *os.File // held until Stop
	port     int
	password string
	proc     *process // nil before the first launch
	closed   bool
}

const (
	startTimeout     = 60 * time.Second // long enough for crash recovery on a slow disk
	fastTimeout      = 10 * time.Second
	immediateTimeout = 6 * time.Second // PostgreSQL itself kills its children after 5 s
)

// Start runs a server and returns when it answers queries. It makes the data directory if there is none, and stops
// what a killed previous run left there. ctx bounds the start only; the server runs until Stop, or, on Linux, until
// this process dies. As root the server runs as an unprivileged account, since PostgreSQL refuses to run as root.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Dir == "" {
		return nil, errors.New("localpg: Dir is required")
	}
	if cfg.Port < 0 || cfg.Port > 65535 {
		return nil, fmt.Errorf("localpg: Port %d is not a port", cfg.Port)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	bin, err := findBinaries(ctx)
	if err != nil {
		return nil, err
	}
	account, err := chooseAccount()
	if err != nil {
		return nil, err
	}
	s := &Server{log: cfg.Logger, bin: bin, account: account, ephemeral: cfg.Ephemeral, settings: cfg.Settings, primary: cfg.StandbyOf}
	if err := s.open(ctx, cfg); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *Server) open(ctx context.Context, cfg Config) error {
	if err := s.lockDir(cfg.Dir); err != nil {
		return err
	}
	if err := s.chooseHome(ctx); err != nil {
		return err
	}
	if err := stopOrphans(ctx, s.log, s.data()); err != nil {
		return err
	}
	if err := s.prepareData(ctx); err != nil {
		return err
	}
	// The log of this run only: it would grow for ever otherwise.
	if err := os.Truncate(s.LogFile(), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("localpg: %w", err)
	}
	return s.startOnPort(ctx, cfg.Port)
}

func (s *Server) data() string { return filepath.Join(s.home, "data") }

// LogFile is where the server's own log goes.
func (s *Server) LogFile() string { return filepath.Join(s.home, "postgres.log") }

// Version is the server's version, such as "15.18".
func (s *Server) Version() string { return s.bin.version }

// BinDir is where the server's binaries are.
func (s *Server) BinDir() string { return s.bin.dir }

// DSN is the URL of a database for the superuser. The password in it is random and asked for: other accounts of this
// machine can reach the port too.
func (s *Server) DSN(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword("postgres", s.password),
		Host:     "127.0.0.1:" + strconv.Itoa(s.port),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Stop ends the server: a fast shutdown first, an immediate one when that takes over 10 s or ctx ends. It waits for
// all processes, releases Dir, and removes it when Ephemeral. Further calls do nothing.
func (s *Server) Stop(ctx context.Context) error {
	if s.closed {
		return nil
	}
	return errors.Join(s.stopProcess(ctx), s.close())
}

// close gives back what open took, however far it came.
func (s *Server) close() error {
	s.closed = true
	var errs []error
	if s.ephemeral && s.lock != nil {
		if s.home != "" {
			errs = append(errs, os.RemoveAll(s.home))
		}
		errs = append(errs, os.RemoveAll(s.dir))
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}
