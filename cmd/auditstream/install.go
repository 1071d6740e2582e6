package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"auditstream/internal/sql"

	"github.com/jackc/pgx/v5"
)

type installCmd struct {
	databaseFlags `embed:""`
	Table         string        `placeholder:"public.audits" help:"The table to adopt, as written in SQL; without it public.audits, or public.NAME of the feed NAME."`
	Feed          string        `default:"audits" placeholder:"NAME" help:"The name of what is adopted, in URLs: /api/v1/sse/NAME/ID/progress. Each table is a feed of its own, and one can be several."`
	Create        bool          `help:"Make the table where there is none, and for a feed that is not audits a function that writes to it: auditstream.report(key, progress, message)."`
	Role          string        `placeholder:"NAME" help:"Grant this role what serve needs, and no more."`
	Column        []string      `sep:"none" placeholder:"OURS=THEIRS" help:"Which of your columns is one of ours: error=failure_reason. OURS: id, status, progress, message, geo_score, total_pages, error, user_id, user_email, group_id. THEIRS can also be column.name.name in json, done/total in per cent, column*100, or 100-pending/total. Nothing after the = leaves it out. Repeatable."`
	Status        []string      `sep:"none" placeholder:"[SOURCE=]WORD=SHOWN" help:"What viewers see in place of a word of the status: discarded=failed. WORD: a label, a text in any case, an integer, a boolean, or null and set. With a SOURCE, as for --column, the word is that source's: cancelled_at=set=cancelled; the first that fits counts, before words of the status. Repeatable."`
	Ends          []string      `sep:"none" placeholder:"WORD" help:"A status that ends a row, besides completed and failed, in any case. Repeatable."`
	Field         []string      `sep:"none" placeholder:"NAME[=SOURCE]" help:"What is shown, too: a column, or a source as for --column. Repeatable."`
	Lookup        []string      `sep:"none" placeholder:"COLUMN=SCHEMA.TABLE.KEY:OWNER" help:"Owners are in another table: with --column user_id=created_by, created_by=public.users.id:uid. Repeatable."`
	Ring          []string      `sep:"none" placeholder:"TABLE=COLUMN" help:"A change in TABLE is one of the row that its COLUMN names: job_progress=job_id. Repeatable."`
	View          string        `type:"existingfile" placeholder:"FILE" help:"A file with a SELECT of yours that is shown in place of the table: id, status, progress, and what else it has of ours; --table is then the table whose changes are announced. It is remembered."`
	Hide          string        `placeholder:"COLUMN" help:"Rows are hidden while this column is not null, like deleted_at, or, where it is a boolean, while it is true. A column that is never null is refused."`
	Deleted       string        `placeholder:"WORD" help:"The status with which a row is shown that is deleted while somebody watches it, like completed. Rows that --hide hides, or that go for any other reason, count as deleted."`
	Public        bool          `help:"Every valid token may see every row."`
	NoTriggers    bool          `help:"Only the view: changes are found by polling alone."`
	NotifyAlways  bool          `help:"Let the triggers notify of every change, not only of rows that somebody watches: concurrent writers then wait for each other's commits."`
	LockWait      time.Duration `default:"30s" help:"How long to try for the table's lock. Each try is short, so that your writers never queue behind it."`
	DryRun        bool          `help:"Print the SQL and run nothing."`
	logFlags      `embed:""`
}

func (c *installCmd) Help() string {
	return `It says, on standard error, from where it takes what is shown, what it has found no column for, and what each word of the status does.

Run it again to upgrade or repair what is installed: replace the program first, then install. It happens in one transaction,
while your writers write and viewers watch. What a feed shows, and how, need not be given again: what is installed remembers it, and
options that are given change it. A --status replaces all that were given before, so give all of them, and so does each other option that can be
repeated, but for --column. --table, --no-triggers and --notify-always have to be given again. To take back --hide, --public or
--view, uninstall the feed first. What a newer program has installed is left alone.

Where your role is a member of the table's owner, install acts as the owner (set local role), so that what it makes belongs to that role, and
each of its members can install again.`
}

func (c *installCmd) Run(ctx context.Context, std streams) error {
	columns, wrongColumns := columnMap(c.Column)
	words, wrongWords := sql.ParseWords(c.Status)
	err := errors.Join(wrongColumns, wrongWords)
	if err != nil {
		return err
	}
	var view []byte
	if c.View != "" {
		if view, err = os.ReadFile(c.View); err != nil {
			return usageError{fmt.Errorf("--view: %w", err)}
		}
		if strings.TrimSpace(string(view)) == "" {
			return usageError{fmt.Errorf("--view=%q is empty; give a file with a SELECT of id, status and progress", c.View)}
		}
	}
	options := sql.Options{
		Rings: c.Ring, View: strings.TrimRight(string(view), "; \t\r\n"),
		Feed: c.Feed, Words: words, Ends: c.Ends, Fields: c.Field, Lookups: c.Lookup, Hide: c.Hide, Deleted: c.Deleted, Public: c.Public,
		Table: c.Table, Create: c.Create, Role: c.Role, Columns: columns, NoTriggers: c.NoTriggers, NotifyAlways: c.NotifyAlways,
		LockWait: c.LockWait, Logger: c.logFlags.logger(std.err),
	}
	if c.DryRun {
		return change(ctx, std, c.databaseFlags, options, sql.PlanInstall, func(plan *sql.Plan) string {
			if upgrades(plan) {
				fmt.Fprintf(std.err, "auditstream: this upgrades the schema from version %d to %d\n", plan.Schema, sql.SchemaVersion)
			}
			return script(plan)
		})
	}
	return change(ctx, std, c.databaseFlags, options, sql.Install, func(plan *sql.Plan) string {
		switch {
		case plan.SQL == "" && plan.Unmended > 0:
			return fmt.Sprintf("auditstream is installed on %s already; what it warns of is not install's to change.\n", plan.Table)
		case plan.SQL == "":
			return fmt.Sprintf("auditstream is installed on %s already; nothing to change.\n", plan.Table)
		case upgrades(plan):
			return fmt.Sprintf("Upgraded on %s: the schema was of version %d and is of version %d now.\n", plan.Table, plan.Schema, sql.SchemaVersion)
		}
		return fmt.Sprintf("Installed on %s. Next: auditstream serve, which streams a row at /api/v1/sse/%s/KEY/progress\n", plan.Table, c.Feed)
	})
}

func upgrades(plan *sql.Plan) bool {
	return plan.SQL != "" && plan.Schema != 0 && plan.Schema < sql.SchemaVersion
}

// quoteAll quotes OURS=THEIRS for a shell.
func quoteAll(pairs []string) string {
	var quoted []string
	for _, pair := range pairs {
		ours, theirs, _ := strings.Cut(pair, "=")
		if theirs != "" {
			theirs = sql.ShellQuote(theirs)
		}
		quoted = append(quoted, ours+"="+theirs)
	}
	return strings.Join(quoted, " --column ")
}

// columnMap parses OURS=THEIRS. Package sql checks the names.
func columnMap(pairs []string) (map[string]string, error) {
	columns := make(map[string]string)
	var wrong []error
	for _, pair := range pairs {
		ours, theirs, ok := strings.Cut(pair, "=")
		_, twice := columns[ours]
		switch {
		case !ok:
			wrong = append(wrong, usageError{fmt.Errorf("--column=%q has no equals sign; give OURS=THEIRS, like error=failure_reason", pair)})
		case twice:
			wrong = append(wrong, usageError{fmt.Errorf("--column=%q maps %s a second time; give each column once", pair, ours)})
		}
		columns[ours] = theirs
	}
	return columns, errors.Join(wrong...)
}

type uninstallCmd struct {
	databaseFlags `embed:""`
	Feed          string        `placeholder:"NAME" help:"Only this feed; without it, all."`
	LockWait      time.Duration `default:"30s" help:"How long to try for the table's lock."`
	DryRun        bool          `help:"Print the SQL and run nothing."`
	logFlags      `embed:""`
}

func (c *uninstallCmd) Run(ctx context.Context, std streams) error {
	options := sql.Options{Feed: c.Feed, LockWait: c.LockWait, Logger: c.logFlags.logger(std.err)}
	if c.DryRun {
		return change(ctx, std, c.databaseFlags, options, sql.PlanUninstall, script)
	}
	return change(ctx, std, c.databaseFlags, options, sql.Uninstall, func(plan *sql.Plan) string {
		switch {
		case plan.SQL == "" && c.Feed != "":
			return fmt.Sprintf("There is no feed %s in this database; nothing to change.\n", c.Feed)
		case plan.SQL == "":
			return "auditstream is not installed in this database; nothing to change.\n"
		case len(plan.Warnings) > 0:
			return "Uninstalled, but for what the warning names.\n"
		case c.Feed != "" && !plan.Last:
			return fmt.Sprintf("Uninstalled the feed %s. Others are left.\n", c.Feed)
		}
		return "Uninstalled. Nothing of auditstream is left in this database.\n"
	})
}

// script returns what --dry-run prints: only SQL, so that it can be piped into psql.
func script(plan *sql.Plan) string { return cmp.Or(plan.SQL, "-- nothing to change\n") }

type operation = func(context.Context, *pgx.Conn, sql.Options) (*sql.Plan, error)

// change runs install or uninstall, or plans one, on a connection of its own, and prints what it says and its outcome.
func change(ctx context.Context, std streams, db databaseFlags, o sql.Options, run operation, outcome func(*sql.Plan) string) error {
	if err := db.check(); err != nil {
		return err
	}
	conn, err := connect(ctx, db.DatabaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, warning := range connectionWarnings(db.DatabaseURL, "") {
		fmt.Fprintln(std.err, "auditstream: warning:", warning)
	}
	plan, err := run(ctx, conn, o)
	if err != nil {
		return err
	}
	if len(plan.Kept) > 0 {
		fmt.Fprintln(std.err, "auditstream: as installed before: --column", quoteAll(plan.Kept))
	}
	for _, note := range plan.Notes {
		fmt.Fprintln(std.err, "auditstream:", note)
	}
	for _, warning := range plan.Warnings {
		fmt.Fprintln(std.err, "auditstream: warning:", warning)
	}
	_, err = fmt.Fprint(std.out, outcome(plan))
	return err
}
