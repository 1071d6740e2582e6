package auditstream

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"auditstream/internal/sql"

	"github.com/jackc/pgx/v5"
)

// Table says which table to adopt, and how its rows are shown. A later Install keeps the choices of an earlier one where a field is
// empty; Name, NoTriggers and NotifyAlways must be given each time.
type Table struct {
	// Name is the table's name as SQL writes it: audits, public.audits, "My Schema"."Audit Log". Default: public.audits, or public.FEED
	// for another feed.
	Name string
	// Feed is the feed's name in URLs. Default: audits.
	Feed string
	// Create creates the table if it does not exist.
	Create bool
	// Role is granted what a [Service]'s pool needs: CONNECT, and SELECT on the views. Default: nobody, as the owner needs no grant.
	Role string
	// Columns maps our names (id, status, progress, message, geo_score, total_pages, error, user_id, user_email, group_id) to the table's
	// columns: a name, a path in json (column.name.name), a ratio in per cent (a/b), or column*100. "" leaves one out. Default: the table's
	// columns of the same names.
	Columns map[string]string
	// Status maps a status in the table to the status that viewers see, like "discarded" to "failed".
	Status map[string]string
	// Ends are the statuses, as viewers see them, that end a row besides completed and failed.
	Ends []string
	// Fields are further fields to show: NAME, or NAME=SOURCE.
	Fields []string
	// Lookups find owners in other tables: COLUMN=SCHEMA.TABLE.KEY:OWNER.
	Lookups []string
	// Rings are child tables, as TABLE=COLUMN: a change of a row there counts as a change of the row whose key COLUMN holds.
	Rings []string
	// View is a query that rows are read with in place of the table. It selects id, status and progress, and any of the others.
	View string
	// Hide is a column: a row is hidden while it is not null or, where it is a boolean, while it is true.
	Hide string
	// Deleted is the status to show for a row that was deleted while somebody watched it, or that went for any other reason: hidden, with
	// another key, truncated. Default: the stream ends with an error event.
	Deleted string
	// Public says that every viewer may see every row.
	Public bool
	// NoTriggers installs the view without triggers: changes are found by polling.
	NoTriggers bool
	// NotifyAlways has the triggers notify of every change, whether anybody watches or not. Concurrent writers then wait for each other's
	// commits.
	NotifyAlways bool
	// LockWait is how long Install tries to get the table's lock. Each try blocks writers for at most 200 ms. Default: 30 s.
	LockWait time.Duration
	// Logger gets a record of such waits. Default: none.
	Logger *slog.Logger
}

// Report says what Install or Uninstall has done.
type Report struct {
	// Table is the table's name, quoted and with its schema.
	Table string
	// Changed reports whether anything in the database was changed.
	Changed bool
	// Notes say what was found in the table, and how it is shown.
	Notes []string
	// Warnings name what works differently from what one might expect.
	Warnings []string
}

// Install adopts a table in one transaction, while writers write and viewers watch. On a table that is adopted already it changes nothing
// and takes no lock that a writer could notice, but repairs what was dropped or altered since. Concurrent Installs take turns.
//
// conn is the table's owner's, and in no transaction. The error is a [UsageError], an [ErrDenied] that says which rights are missing, or what
// is wrong with the table.
func Install(ctx context.Context, conn *pgx.Conn, t Table) (Report, error) {
	o, err := t.options()
	if err != nil {
		return Report{}, err
	}
	return report(sql.Install(ctx, conn, o))
}

// InstallSQL returns the SQL that Install would run, for a migration tool: a script without begin and commit, to run in one transaction
// of the tool, which restores the settings that it changes. It is "" where nothing has to change. InstallSQL reads the table in conn's
// database and changes nothing there: call it on a database in which all earlier migrations have run, once for each change of the table.
//
// The script has bodies in dollar quotes: goose wants it between -- +goose StatementBegin and -- +goose StatementEnd; tern, atlas and
// golang-migrate take it as it is; rivermigrate, and any Go migration, run it by an Exec without arguments. The script waits 200 ms for the
// table's lock and fails if a long transaction holds it; run the migration again then. The errors are Install's.
func InstallSQL(ctx context.Context, conn *pgx.Conn, t Table) (string, error) {
	o, err := t.options()
	if err != nil {
		return "", err
	}
	plan, err := sql.PlanInstall(ctx, conn, o)
	if err != nil {
		return "", translateError(err)
	}
	return plan.Migration(), nil
}

// Uninstall removes a feed, or with "" everything that Install has ever made in the database. The feed's streams end, and the choices made
// at its install are forgotten. conn is as for Install.
func Uninstall(ctx context.Context, conn *pgx.Conn, feed string) (Report, error) {
	return report(sql.Uninstall(ctx, conn, sql.Options{Feed: feed}))
}

func report(plan *sql.Plan, err error) (Report, error) {
	if err != nil {
		return Report{}, translateError(err)
	}
	return Report{Table: plan.Table, Changed: plan.SQL != "", Notes: plan.Notes, Warnings: plan.Warnings}, nil
}

func (t Table) options() (sql.Options, error) {
	var pairs []string
	for _, word := range slices.Sorted(maps.Keys(t.Status)) {
		pairs = append(pairs, word+"="+t.Status[word])
	}
	words, err := sql.ParseWords(pairs)
	if err != nil {
		return sql.Options{}, translateError(err)
	}
	return sql.Options{
		Table: t.Name, Feed: t.Feed, Create: t.Create, Role: t.Role, Columns: t.Columns, Words: words, Ends: t.Ends, Fields: t.Fields,
		Lookups: t.Lookups, Rings: t.Rings, View: t.View, Hide: t.Hide, Deleted: t.Deleted, Public: t.Public,
		NoTriggers: t.NoTriggers, NotifyAlways: t.NotifyAlways, LockWait: t.LockWait, Logger: t.Logger,
	}, nil
}
