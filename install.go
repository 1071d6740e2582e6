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

// Table says what to adopt, and how its rows are shown. What a feed was given before need not be given again; Name, NoTriggers and
// NotifyAlways have to be.
type Table struct {
	// Name is the table's as written in SQL: audits, public.audits, "My Schema"."Audit Log". Default: public.audits, or of another
	// feed public.FEED.
	Name string
	// Feed is what URLs call it. Default: audits.
	Feed string
	// Create makes the table where there is none.
	Create bool
	// Role is granted what a [Service]'s pool needs: CONNECT, and SELECT on the views. Default: nobody, as the owner needs no grant.
	Role string
	// Columns map our names (id, status, progress, message, geo_score, total_pages, error, user_id, user_email, group_id) to the table's
	// columns: a name, a path in json (column.name.name), a ratio in per cent (a/b), column*100. "" leaves one out. Default: the columns of
	// these names.
	Columns map[string]string
	// Status maps what is stored in the status to what viewers see, like "discarded" to "failed".
	Status map[string]string
	// Ends are the statuses, as viewers see them, that end a row besides completed and failed.
	Ends []string
	// Fields are what else is shown: NAME, or NAME=SOURCE.
	Fields []string
	// Lookups find owners in other tables: COLUMN=SCHEMA.TABLE.KEY:OWNER.
	Lookups []string
	// Rings are other tables whose changes are changes of the rows that a column there names: TABLE=COLUMN.
	Rings []string
	// View is a query that stands in for the table where it is read. It selects id, status and progress, and any of the others.
	View string
	// Hide is a column: while it is not null a row is not shown.
	Hide string
	// Deleted is the status with which a row is shown that was deleted while somebody watched it. Default: it is said to be gone.
	Deleted string
	// Public says that every viewer may see every row.
	Public bool
	// NoTriggers installs the view alone: changes are found by polling.
	NoTriggers bool
	// NotifyAlways has the triggers notify of every change, whether anybody watches or not. Concurrent writers then wait for each other's
	// commits.
	NotifyAlways bool
	// LockWait is how long to try for the table's lock, for which writers never wait longer than 200 ms at a time. Default: 30 s.
	LockWait time.Duration
	// Logger is told of such waits. Default: nobody.
	Logger *slog.Logger
}

// Report is what Install or Uninstall has done.
type Report struct {
	// Table is the table's name, quoted and with its schema.
	Table string
	// Changed reports whether anything was.
	Changed bool
	// Notes say what was found in the table, and what becomes of it.
	Notes []string
	// Warnings say what works, and not as somebody might expect.
	Warnings []string
}

// Install adopts a table, in one transaction, while its writers write and viewers watch. Where that was done before it changes nothing and
// takes no lock that a writer could notice; what was dropped or altered since is repaired. Programs that install at the same time take turns.
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

// InstallSQL returns what Install would run, for a tool that runs migrations: a script without begin and commit, for one transaction of the
// tool's, whose settings are as before when it ends. It is "" where nothing has to change. It depends on the table as it is in conn's
// database, on which it changes nothing: make it there where the migrations before have been run, once for each change of the table.
//
// The script has bodies in dollar quotes: goose wants it between -- +goose StatementBegin and -- +goose StatementEnd; tern, atlas and
// golang-migrate take it as it is, and rivermigrate, or any Go migration, by an Exec without arguments. It waits 200 ms for the table's lock and
// fails where a long transaction holds it; run the migration again then. The errors are Install's.
func InstallSQL(ctx context.Context, conn *pgx.Conn, t Table) (string, error) {
	o, err := t.options()
	if err != nil {
		return "", err
	}
	plan, err := sql.PlanInstall(ctx, conn, o)
	if err != nil {
		return "", named(err)
	}
	return plan.Migration(), nil
}

// Uninstall removes a feed, or with "" all that Install has ever made in the database: nothing is left then. Its streams end, and what the
// feed was given is forgotten. conn is as for Install.
func Uninstall(ctx context.Context, conn *pgx.Conn, feed string) (Report, error) {
	return report(sql.Uninstall(ctx, conn, sql.Options{Feed: feed}))
}

func report(plan *sql.Plan, err error) (Report, error) {
	if err != nil {
		return Report{}, named(err)
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
		return sql.Options{}, named(err)
	}
	return sql.Options{
		Table: t.Name, Feed: t.Feed, Create: t.Create, Role: t.Role, Columns: t.Columns, Words: words, Ends: t.Ends, Fields: t.Fields,
		Lookups: t.Lookups, Rings: t.Rings, View: t.View, Hide: t.Hide, Deleted: t.Deleted, Public: t.Public,
		NoTriggers: t.NoTriggers, NotifyAlways: t.NotifyAlways, LockWait: t.LockWait, Logger: t.Logger,
	}, nil
}
