package sql

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Channel is what the triggers notify. The payload is the id of a row that changed, or * when any may have.
const Channel = "auditstream"

// DefaultTable is the table that is adopted when [Options.Table] is empty.
const DefaultTable = "public.audits"

// Options says which table is adopted, and how. The zero value adopts [DefaultTable].
type Options struct {
	// Table is the name as written in SQL: audits, public.audits, "My Schema"."Audit Log". A name that SQL folds to one that does not
	// exist is also tried exactly as it is spelled, because shells eat quotes. Empty: [DefaultTable], or of another feed public.FEED.
	Table string
	// Create makes the table where there is none: that of audits.sql, or of another feed that of feed.sql and the function auditstream.report.
	Create bool
	// Role is granted what serve needs: CONNECT, USAGE on the schema, and SELECT on the views. Empty: nobody.
	Role string
	// Feed is the name of what is adopted, in URLs and notifications. Empty: audits; for Uninstall, all.
	Feed string
	// Columns maps our names (id, status, progress, message, geo_score, total_pages, error, user_id, user_email, group_id) to sources of the
	// table's: a column, column.name.name in json, a/b in per cent, column*100, 100-a/b. An empty value leaves the column out; a progress that is left out is 0 until the
	// row is completed. Names that are missing here are as in the install before, and else looked for in the table.
	Columns map[string]string
	// Words say what viewers see in place of what is stored in the status.
	Words []Word
	// Ends are the statuses, as viewers see them, that end a row besides completed and failed.
	Ends []string
	// Fields are what else is shown: NAME, or NAME=SOURCE.
	Fields []string
	// Lookups find owners in other tables: COLUMN=SCHEMA.TABLE.KEY:OWNER.
	Lookups []string
	// Rings are other tables whose changes are changes of the rows that a column there names: TABLE=COLUMN.
	Rings []string
	// View is a query that stands in for the table where it is read: it selects id, status and progress, and what else it has of the names of
	// Columns, which name its columns then. It may join tables; each has its schema. Install remembers it.
	View string
	// Hide is a column: while it is not null a row is not shown.
	Hide string
	// Deleted is the status with which a row is shown that was deleted while somebody watched it. Empty: it is said to be gone.
	Deleted string
	// Public says that every viewer may see every row.
	Public bool
	// NoTriggers installs the view alone. Changes are then found by the server's safety net.
	NoTriggers bool
	// NotifyAlways makes the triggers ring for every change, whether anybody watches or not. Commits then wait for each other.
	NotifyAlways bool
	// LockTimeout is how long one attempt may wait for the table's lock, and with it writers that come after. Default 200 ms.
	LockTimeout time.Duration
	// LockWait is how long all attempts may take together. Default 30 s.
	LockWait time.Duration
	// Logger is told when Install or Uninstall waits for a lock. Nil: nobody.
	Logger *slog.Logger

	report string // the function that writes to the table that Create has made; "": none
}

// UsageError is a mistake in [Options] that no database can mend. The command exits with status 2.
type UsageError struct{ Message string }

func (e UsageError) Error() string { return e.Message }

func usagef(format string, args ...any) error {
	return UsageError{Message: fmt.Sprintf(format, args...)}
}

// ours are the view's columns after audit_id, which is called id in the options and comes first there.
var ours = []string{"user_id", "user_email", "status", "progress", "message", "geo_score", "total_pages", "error"}

// defaultFeed is the first one, whose names and JSON the API page fixes.
const defaultFeed = "audits"

var feedName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

func (o Options) feed() string { return cmp.Or(o.Feed, defaultFeed) }

// withDefaults validates o and returns it complete.
func (o Options) withDefaults() (Options, error) {
	o.Table = cmp.Or(o.Table, "public."+o.feed())
	if !feedName.MatchString(o.feed()) || o.Feed == "sse" {
		return o, usagef("--feed %q: give a name of 1 to 31 letters from a to z, digits and _, that begins with a letter and is not sse", o.Feed)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Columns)) {
		if name != "id" && name != "group_id" && !slices.Contains(ours, name) {
			return o, usagef("--column %s=%s: there is no column %q to map; it can be id, group_id, %s", name, o.Columns[name], name, strings.Join(ours, ", "))
		}
		if o.Columns[name] == "" && (name == "id" || name == "status") {
			return o, usagef("--column %s=: the column %[1]s cannot be left out; name the column of your table that holds it", name)
		}
	}
	if o.LockTimeout < 0 || o.LockWait < 0 {
		return o, usagef("a lock time-out of less than nothing: %v, %v in all", o.LockTimeout, o.LockWait)
	}
	// PostgreSQL counts in milliseconds and takes 0 to mean for ever, which is the one thing that must not happen.
	o.LockTimeout = max(cmp.Or(o.LockTimeout, 200*time.Millisecond), time.Millisecond)
	o.LockWait = max(cmp.Or(o.LockWait, 30*time.Second), time.Millisecond)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return o, nil
}
