package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"syscall"

	"auditstream/internal/sql"

	"github.com/alecthomas/kong"
)

const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

type cli struct {
	Serve     serveCmd     `cmd:"" help:"Serve the streams of an installed database."`
	Dev       devCmd       `cmd:"" help:"Try it: a private PostgreSQL, live audits and the page, with nothing to set up."`
	Relay     relayCmd     `cmd:"" help:"Publish PostgreSQL's notifications to Redis, for serve with SSE_SOURCE=redis."`
	Install   installCmd   `cmd:"" help:"Adopt a table: add the view and the triggers to its database."`
	Uninstall uninstallCmd `cmd:"" help:"Remove everything that install added."`
	Doctor    doctorCmd    `cmd:"" help:"Check the database, the triggers, LISTEN and the tokens' configuration."`
	Token     tokenCmd     `cmd:"" help:"Make a token for a user, signed with JWT_SECRET."`
	Watch     watchCmd     `cmd:"" help:"Follow audits in the terminal: a bar each, or one JSON line an event."`
	Version   versionCmd   `cmd:"" help:"Print the version."`
	Man       manCmd       `cmd:"" hidden:"" help:"Write the manual page."`
}

const description = `Live progress from PostgreSQL: when a row of the audits table changes and the transaction commits, every browser that watches it sees it within milliseconds.

Start here:

  auditstream dev                             try it, needs only PostgreSQL's binaries

For your own database (DATABASE_URL=postgres://user:password@host/database):

  auditstream install --table public.audits   adopt the table
  auditstream serve                           serve the streams
  auditstream doctor                          check that everything works

Every flag of serve is also an environment variable.`

// usageError is a mistake in a command's arguments or configuration: the exit status is 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// streams are a command's standard output and standard error.
type streams struct{ out, err io.Writer }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := run(ctx, os.Args[1:], streams{os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// run is the program: it parses args, runs the command until ctx is done, and returns the exit status.
func run(ctx context.Context, args []string, std streams) (code int) {
	type exit struct{ code int }
	defer func() { // kong calls exit after --help
		if e, ok := recover().(exit); ok {
			code = e.code
		}
	}()
	dropEmptyEnv()
	switch {
	case len(args) == 0:
		args = []string{"--help"}
	case args[0] == "help":
		args = append(slices.Clone(args[1:]), "--help")
	}
	parse := func() (*kong.Context, *configuration, error) {
		var c cli
		parser, err := newParser(ctx, &c, std, func(code int) { panic(exit{code}) })
		if err != nil {
			return nil, nil, err
		}
		command, err := parser.Parse(args)
		if err != nil {
			return nil, nil, err
		}
		return command, newConfiguration(command, &c), nil
	}
	command, current, err := parse()
	if err != nil {
		fmt.Fprintf(std.err, "auditstream: %v\nTry 'auditstream --help'.\n", err)
		return exitUsage
	}
	again := reparse(func() (*configuration, error) {
		_, next, err := parse()
		return next, err
	})
	return report(std, command.Run(current, again))
}

func newParser(ctx context.Context, c *cli, std streams, exit func(code int)) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("auditstream"), kong.Description(description), kong.Writers(std.out, std.err), kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(std), kong.KindMapper(reflect.String, kong.MapperFunc(decodeText)),
	)
}

func report(std streams, err error) int {
	if err == nil {
		return exitDone
	}
	fmt.Fprintln(std.err, "auditstream:", err)
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[sql.UsageError](err); ok {
		return exitUsage
	}
	if e, ok := errors.AsType[exitError](err); ok {
		return e.code
	}
	return exitFailed
}
