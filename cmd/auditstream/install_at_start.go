package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"auditstream/internal/sql"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// startInstallFlags are flags of serve only: with them one command, or one container, leads from an own database to the first event.
type startInstallFlags struct {
	Install tableName `env:"AUDITSTREAM_INSTALL" placeholder:"TABLE" help:"Adopt this table before serving, as install --table TABLE does, with the rights of DATABASE_URL; changes nothing where that was done before."`
}

// tableName refuses an empty value, which would stand for install's default table.
type tableName string

func (n *tableName) Decode(ctx *kong.DecodeContext) error {
	text, err := word(ctx)
	if err == nil && text == "" {
		err = errors.New(`invalid value ""; give a table as written in SQL, like public.audits`)
	}
	*n = tableName(text)
	return err
}

// installRetry is the pause between attempts to connect to a database that is starting. If it is longer, the first event comes later.
const installRetry = 500 * time.Millisecond

// installAtStart adopts the table of --install, if it is given. It waits for an unreachable database until ctx is done, because containers
// start in any order; every other failure is an error.
func (f startInstallFlags) installAtStart(ctx context.Context, url string, logger *slog.Logger) error {
	if f.Install == "" {
		return nil
	}
	conn, err := connectWhenUp(ctx, url, logger)
	if err != nil {
		return fmt.Errorf("--install (AUDITSTREAM_INSTALL): %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	schema, err := sql.ReadSchema(ctx, conn)
	if err != nil {
		return fmt.Errorf("--install (AUDITSTREAM_INSTALL): %w", err)
	}
	if schema.Version > sql.SchemaVersion { // an older instance restarted during an upgrade: it serves the newer schema, and warns
		return nil
	}
	plan, err := sql.Install(ctx, conn, sql.Options{Table: string(f.Install), Logger: logger})
	switch {
	case err == nil:
		logInstalled(logger, plan)
	case !lacksRights(err):
		return fmt.Errorf("--install (AUDITSTREAM_INSTALL) %s: %w", f.Install, err)
	case f.isAdopted(ctx, conn, schema): // service's driftWatch logs what differs from the install
		logger.Warn("installed already, and this role may not repair it", "table", schema.Table, "missing", err)
	default:
		return fmt.Errorf("--install (AUDITSTREAM_INSTALL) %s: %w\n%s", f.Install, err, f.command(currentUser(ctx, conn)))
	}
	return nil
}

// command returns the advice for a role without the rights: what the table's owner runs once.
func (f startInstallFlags) command(role string) string {
	return fmt.Sprintf("Or run it once with the table owner's DATABASE_URL, and then serve again: auditstream install --table %s --role %s",
		sql.ShellQuote(string(f.Install)), sql.ShellQuote(role))
}

func currentUser(ctx context.Context, conn *pgx.Conn) string {
	role := conn.Config().User // used if the query fails
	_ = conn.QueryRow(ctx, "select current_user::text").Scan(&role)
	return role
}

// connectWhenUp connects, and tries again while the server is unreachable or does not accept connections yet.
func connectWhenUp(ctx context.Context, url string, logger *slog.Logger) (*pgx.Conn, error) {
	for told := false; ; told = true {
		conn, err := connect(ctx, url)
		if err == nil {
			return conn, nil
		}
		if _, final := explain(err); final {
			return nil, errors.New(hideNames(err.Error()))
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

// isAdopted reports whether the table is adopted already, as far as a role without the rights to install can tell.
func (f startInstallFlags) isAdopted(ctx context.Context, conn *pgx.Conn, schema sql.Schema) (same bool) {
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
