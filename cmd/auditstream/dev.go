package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"auditstream/internal/localpg"
	"auditstream/internal/server"

	"golang.org/x/sync/errgroup"
)

type devCmd struct {
	Command  []string `arg:"" optional:"" passthrough:"" help:"Run this beside the private database, with its DATABASE_URL, in place of the page and what it shows."`
	HTTPAddr string   `name:"http-addr" env:"HTTP_ADDR" placeholder:"ADDRESS" help:"Address to serve on, HOST:PORT or :PORT. Default: 127.0.0.1:8080, or the next port that is free."`
	Dir      string   `default:".auditstream" placeholder:"DIR" help:"Where the private database is kept. Default: .auditstream."`
	Verbose  bool     `short:"v" help:"Log what the server does, not only what goes wrong."`
}

func (c *devCmd) Help() string {
	return `Starts a private PostgreSQL in .auditstream/, adopts a table in it, keeps a few audits and exports running, serves them on
127.0.0.1:8080 and prints what to try. Needs PostgreSQL's programs (initdb, postgres) and nothing else. Ctrl-C stops all of it.
Of the variables of serve only HTTP_ADDR counts here.

With a command, as in "auditstream dev make migrate", the database is there for that alone, empty the first time, and dev ends with it.`
}

const (
	devHost     = "127.0.0.1"
	devPort     = 8080
	devPorts    = 100 // how many ports are tried, from devPort on
	devUser     = "dev"
	devStopTime = 20 * time.Second
	// The token in the printed lines must outlive dev's run; the page asks for fresh tokens by itself.
	devPrintedTokenTTL = 30 * 24 * time.Hour
	devPageTokenTTL    = 12 * time.Hour
)

func (c *devCmd) Run(ctx context.Context, std streams) error {
	if os.Getenv("DATABASE_URL") != "" {
		return usageError{errors.New("DATABASE_URL is set, but dev works on a private database of its own: unset DATABASE_URL, or run auditstream serve for the database that it names")}
	}
	if c.Dir == "" {
		return usageError{errors.New(`--dir="" names no directory; give one, like .auditstream`)}
	}
	if len(c.Command) > 0 && c.Command[0] == "--" { // as before the command of other tools; kong keeps it
		c.Command = c.Command[1:]
	}
	out := c.ownOutput(std)
	run := func(pg *localpg.Server, _ *slog.Logger) error { return c.runCommand(ctx, std, pg) }
	if len(c.Command) == 0 {
		addr, err := c.address(ctx, out) // first, because starting a database takes long
		if err != nil {
			return err
		}
		run = func(pg *localpg.Server, logger *slog.Logger) error { return c.serve(ctx, out, logger, pg, addr) }
	}
	logger := c.logger(std.err)
	pg, err := c.startPostgres(ctx, out, logger)
	if err != nil {
		return unlessStopped(ctx, err)
	}
	err = unlessStopped(ctx, run(pg, logger))
	fmt.Fprintln(out, "\nStopping PostgreSQL ...")
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), devStopTime)
	defer cancel()
	return errors.Join(err, pg.Stop(stop))
}

// unlessStopped returns nil once ctx is done: Ctrl-C is the normal end, at any moment.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (c *devCmd) logger(w io.Writer) *slog.Logger {
	flags := logFlags{LogLevel: level(slog.LevelWarn)}
	if c.Verbose {
		flags.LogLevel = level(slog.LevelInfo)
	}
	return flags.logger(w)
}

// address returns a free address: the one that was asked for, or the first free port from devPort on.
func (c *devCmd) address(ctx context.Context, out io.Writer) (string, error) {
	if c.HTTPAddr != "" {
		err := tryAddress(ctx, c.HTTPAddr)
		if errors.Is(err, syscall.EADDRINUSE) {
			return "", fmt.Errorf("HTTP_ADDR (--http-addr): cannot listen on %s: %w (choose another port, or none, and a free one is found)", c.HTTPAddr, err)
		}
		if err != nil {
			return "", fmt.Errorf("HTTP_ADDR (--http-addr): cannot listen on %s: %w", c.HTTPAddr, err)
		}
		return c.HTTPAddr, nil
	}
	for port := devPort; ; port++ {
		addr := net.JoinHostPort(devHost, strconv.Itoa(port))
		err := tryAddress(ctx, addr)
		switch {
		case err == nil:
			if port != devPort {
				fmt.Fprintf(out, "Port %d is taken, using %d.\n", devPort, port)
			}
			return addr, nil
		case !errors.Is(err, syscall.EADDRINUSE) || port == devPort+devPorts-1:
			return "", fmt.Errorf("cannot listen on %s: %w (another address: HTTP_ADDR)", addr, err)
		}
	}
}

func tryAddress(ctx context.Context, addr string) error {
	var cfg net.ListenConfig
	l, err := cfg.Listen(ctx, "tcp", addr)
	if err != nil {
		if _, ok := errors.AsType[*net.AddrError](err); ok {
			return usageError{err}
		}
		return err
	}
	return l.Close()
}

func (c *devCmd) startPostgres(ctx context.Context, out io.Writer, logger *slog.Logger) (*localpg.Server, error) {
	bin, err := localpg.FindBinaries(ctx)
	if err != nil {
		return nil, err
	}
	first := ""
	if _, err := os.Stat(c.Dir); errors.Is(err, os.ErrNotExist) {
		first = ", the first time takes some seconds"
	}
	fmt.Fprintf(out, "Starting PostgreSQL in %s (programs of %s%s) ...\n", c.Dir, bin, first)
	return localpg.Start(ctx, localpg.Config{
		Dir: c.Dir, Logger: logger,
		Settings: map[string]string{"track_commit_timestamp": "on"}, // the page shows how old a change is
	})
}

// serve prepares the database and runs the workers and the service until ctx is done.
func (c *devCmd) serve(ctx context.Context, out io.Writer, logger *slog.Logger, pg *localpg.Server, addr string) error {
	secret, err := devSecret(filepath.Join(c.Dir, "jwt-secret"))
	if err != nil {
		return err
	}
	db, err := prepareDevDatabase(ctx, pg, logger)
	if err != nil {
		return err
	}
	pool, err := openPool(ctx, db.app)
	if err != nil {
		return err
	}
	defer pool.Close()
	owner, err := openPool(ctx, db.owner)
	if err != nil {
		return err
	}
	defer owner.Close()
	sim := &simulation{db: pool, logger: logger, workers: devWorkers, exporters: devExporters, extras: make(chan int64)}
	if err := sim.prepare(ctx); err != nil {
		return err
	}
	show := devShow{secret: secret, simulation: sim, psql: psqlLine(pg.BinDir(), db.owner, sim.byHand)}
	pause := newPauser(pg, logger)
	if loopbackAddress(addr) { // buttons that break things are for this machine only
		show.lab = &devLab{owner: owner, simulation: sim, pause: pause}
	}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return sim.run(ctx) })
	group.Go(func() error { return pause.run(ctx) })
	group.Go(func() error {
		cmd := &serveCmd{
			databaseFlags: databaseFlags{DatabaseURL: db.serve},
			httpFlags:     httpFlags{HTTPAddr: addr, AdminAddr: net.JoinHostPort(devHost, "0")},
			authFlags:     authFlags{JWTSecret: secret},
		} // fields that are zero here have serve's defaults
		return serve(ctx, cmd, logger, show.page(), nil, func(srv *server.Server) {
			fmt.Fprint(out, show.lines(pg.Version(), c.Dir, srv.Addr(), srv.AdminAddr()))
		})
	})
	return group.Wait()
}
