package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"auditstream/internal/service"
	"auditstream/internal/sql"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// startInstallFlags are serve's alone: one command, or one container, from somebody's own database to the first event.
type startInstallFlags struct {
	Install tableName `env:"AUDITSTREAM_INSTALL" placeholder:"TABLE" help:"Adopt this table before serving, as install --table TABLE does, with the rights of DATABASE_URL; changes nothing where that was done before."`
}

// tableName is never empty once it is given: that would be install's default, which nobody asked for.
type tableName string

func (n *tableName) Decode(ctx *kong.DecodeContext) error {
	text, err := word(ctx)
	if err == nil && text == "" {
		err = errors.New(`invalid value ""; give a table as written in SQL, like public.audits`)
	}
	*n = tableName(text)
	return err
}

// installRetry is the pause between attempts to reach a database that is starting. Longer, and the first event is later.
const installRetry = 500 * time.Millisecond

// installFirst installs, and returns once the table is adopted. A database that is not there yet is waited for until ctx is done, as
// containers start in any order; everything else that is wrong is an error.
func (f startInstallFlags) installFirst(ctx context.Context, url string, logger *slog.Logger) error {
	if f.Install == "" {
		return nil
	}
	conn, err := reach(ctx, url, logger)
	if err != nil {
		return fmt.Errorf("--install (AUDITSTREAM_INSTALL): %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	schema, err := sql.ReadSchema(ctx, conn)
	if err != nil {
		return fmt.Errorf("--install (AUDITSTREAM_INSTALL): %w", err)
	}
	if schema.Version > sql.SchemaVersion { // an older instance that restarts during an upgrade serves what is there; the schema's watch warns
		return nil
	}
	plan, err := sql.Install(ctx, conn, sql.Options{Table: string(f.Install), Logger: logger})
	switch {
	case err == nil:
		logInstalled(logger, plan)
	case !lacksRights(err):
		return fmt.Errorf("--install (AUDITSTREAM_INSTALL) %s: %w", f.Install, err)
	case f.done(ctx, conn, schema): // the drift watch says what is not as it was made
		logger.Warn("installed already, and this role may not repair it", "table", schema.Table, "missing", err)
	default:
		return fmt.Errorf("--install (AUDITSTREAM_INSTALL) %s: %w\n%s", f.Install, err, f.command(currentUser(ctx, conn)))
	}
	return nil
}

// command is what somebody with the rights runs once.
func (f startInstallFlags) command(role string) string {
	return fmt.Sprintf("Or run it once with the table owner's DATABASE_URL, and then serve again: auditstream install --table %s --role %s",
		service.ShellQuote(string(f.Install)), service.ShellQuote(role))
}

func currentUser(ctx context.Context, conn *pgx.Conn) string {
	role := conn.Config().User // where the server does not answer any more
	_ = conn.QueryRow(ctx, "select current_user::text").Scan(&role)
	return role
}

// reach connects, and waits for a server that cannot be reached or does not accept connections yet.
func reach(ctx context.Context, url string, logger *slog.Logger) (*pgx.Conn, error) {
	for told := false; ; told = true {
		conn, err := connect(ctx, url)
		if err == nil {
			return conn, nil
		}
		if _, final := explain(err); final {
			return nil, errors.New(anonymous(err.Error()))
		}
		if !told {
			logger.Error("the database cannot be reached yet, so nothing is served until it is", "error", err)
		}
		if err := pause(ctx, installRetry); err != nil {
			return nil, err
		}
	}
}

func lacksRights(err error) bool {
	if _, ok := errors.AsType[sql.RightsError](err); ok {
		return true
	}
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return ok && refused.Code == "42501" // insufficient_privilege
}

// done reports whether somebody has adopted the table, as far as a role can tell that may not install.
func (f startInstallFlags) done(ctx context.Context, conn *pgx.Conn, schema sql.Schema) (same bool) {
	err := conn.QueryRow(ctx, "select to_regclass('auditstream.progress') is not null and coalesce(to_regclass($1) = to_regclass($2), false)",
		string(f.Install), schema.Table).Scan(&same)
	return err == nil && same && schema.Version == sql.SchemaVersion
}

func logInstalled(logger *slog.Logger, plan *sql.Plan) {
	for _, note := range plan.Notes {
		logger.Info("install has looked into the table", "note", note)
	}
	for _, warning := range plan.Warnings {
		logger.Warn("install warns", "warning", warning)
	}
	switch {
	case plan.SQL == "":
		logger.Info("installed already, nothing to change", "table", plan.Table)
	case upgrades(plan):
		logger.Info("upgraded", "table", plan.Table, "from", plan.Schema, "to", sql.SchemaVersion)
	default:
		logger.Info("installed", "table", plan.Table)
	}
}
