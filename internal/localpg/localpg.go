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

// Config says where and how a server runs. A field's zero value means its default.
type Config struct {
	Dir       string            // for the data, the log and the password; made if missing; required
	Port      int               // on 127.0.0.1; 0 means a free port
	Settings  map[string]string // further settings of the server, such as "fsync": "off"
	Ephemeral bool              // Stop removes Dir
	StandbyOf *Server           // makes a new Dir a streaming standby of this running server; nil means an independent server
	Logger    *slog.Logger      // nil means none
}

// Server is a running PostgreSQL server. Its methods are not safe for concurrent use, except DSN.
type Server struct {
	log       *slog.Logger
	bin       binaries
	account   account
	ephemeral bool
	settings  map[string]string
	primary   *Server // the server of which a new data directory is a copy; nil: none

	dir      string   // Config.Dir: it has the lock and, if home is elsewhere, a file that says where
	home     string   // for data, log and password: dir, unless the account cannot enter it
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

// Start runs a server and returns when it answers queries. It makes the data directory if there is none, and stops the server that a killed
// run left there. ctx bounds only the start: the server runs until Stop or, on Linux, until this process dies. For root, the server runs
// as an unprivileged account, because PostgreSQL refuses to run as root.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Dir == "" {
		return nil, errors.New("localpg: Config.Dir is required")
	}
	if cfg.Port < 0 || cfg.Port > 65535 {
		return nil, fmt.Errorf("localpg: invalid Config.Port %d: want 0 to 65535", cfg.Port)
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
	// Keep only the log of this run. Otherwise it would grow for ever.
	if err := os.Truncate(s.LogFile(), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("localpg: %w", err)
	}
	return s.startOnPort(ctx, cfg.Port)
}

func (s *Server) data() string { return filepath.Join(s.home, "data") }

// LogFile returns the file of the server's own log.
func (s *Server) LogFile() string { return filepath.Join(s.home, "postgres.log") }

// Version returns the server's version, such as "15.18".
func (s *Server) Version() string { return s.bin.version }

// BinDir returns the directory of the server's binaries.
func (s *Server) BinDir() string { return s.bin.dir }

// DSN returns the URL of a database for the superuser. It has a random password, because other accounts of this machine can reach the port,
// too. Safe for concurrent use.
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

// Stop stops the server: with a fast shutdown, and with an immediate one when that takes over 10 s or ctx ends. It waits for all processes,
// releases Dir, and removes it when Ephemeral. Further calls do nothing.
func (s *Server) Stop(ctx context.Context) error {
	if s.closed {
		return nil
	}
	return errors.Join(s.stopProcess(ctx), s.close())
}

// close releases what open has acquired, also after an error of open.
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
