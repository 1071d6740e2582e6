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

// Channel is the channel that the triggers notify. The payload names the row that has changed, or is * when any row may have changed.
const Channel = "auditstream"

// DefaultTable is the table that is adopted when [Options.Table] is empty.
const DefaultTable = "public.audits"

// Options says which table to adopt, and how. The zero value adopts [DefaultTable].
type Options struct {
	// Table is the name as written in SQL: audits, public.audits, "My Schema"."Audit Log". If no table has the name as SQL folds it, it is
	// tried exactly as spelled, because shells remove quotes. Empty means public.FEED.
	Table string
	// Create makes the table if there is none: that of audits.sql or, for another feed, that of feed.sql and the function
	// auditstream.report.
	Create bool
	// Role is the role that gets what serve needs: CONNECT, USAGE on the schema, and SELECT on the views. Empty means none.
	Role string
	// Feed is the feed's name in URLs and notifications. Empty means audits; for Uninstall it means all feeds.
	Feed string
	// Columns maps our names (id, status, progress, message, geo_score, total_pages, error, user_id, user_email, group_id) to sources: a
	// column, column.name.name in json, a/b in per cent, column*100, 100-a/b. An empty value leaves the name out; a progress that is left
	// out is 0 until the row is completed. A name without an entry is mapped as in the last install, or else to the column of that name.
	Columns map[string]string
	// Words say what viewers see instead of the stored status.
	Words []Word
	// Ends are the statuses, as viewers see them, that end a row besides completed and failed. Upper case letters of ASCII count as lower case.
	Ends []string
	// Fields are further values to show: NAME, or NAME=SOURCE.
	Fields []string
	// Lookups find owners in other tables: COLUMN=SCHEMA.TABLE.KEY:OWNER.
	Lookups []string
	// Rings are other tables whose rows belong to rows of the feed: TABLE=COLUMN. A change there notifies of the row that COLUMN names.
	Rings []string
	// View is a query that is read instead of the table. It selects id, status, progress, and any other of the names of Columns. It may
	// join tables, each with its schema. Later installs keep it.
	View string
	// Hide is a column. Rows in which it is not null are not shown; of a boolean, rows in which it is true.
	Hide string
	// Deleted is the status that viewers see when a row that they watch is deleted, or hidden, or not there for any other reason. When it is empty, they see that the row is gone.
	Deleted string
	// Public says that every viewer may see every row.
	Public bool
	// NoTriggers installs only the view. Then only the server's safety net finds changes.
	NoTriggers bool
	// NotifyAlways makes the triggers notify of every change, whether anybody watches or not. Then commits wait for each other.
	NotifyAlways bool
	// LockTimeout is how long one attempt may wait for the table's lock; writers that come later wait as long. Default 200 ms.
	LockTimeout time.Duration
	// LockWait is how long all attempts together may take. Default 30 s.
	LockWait time.Duration
	// Logger receives a message when Install or Uninstall waits for a lock. Nil means none.
	Logger *slog.Logger

	needOwner bool // refuse a table without a column that names an owner

	hideKept string // the feed, when Hide is of the last install

	report string // the function that writes to the table made by Create; "": none
}

// UsageError is a mistake in [Options], whatever the database. The command exits with status 2.
type UsageError struct{ Message string }

func (e UsageError) Error() string { return e.Message }

func usagef(format string, args ...any) error {
	return UsageError{Message: fmt.Sprintf(format, args...)}
}

// viewColumns are the columns of the view after audit_id, which is called id in the options.
var viewColumns = []string{"user_id", "user_email", "status", "progress", "message", "geo_score", "total_pages", "error"}

// defaultFeed is the name of the first feed. The API page fixes its names and its JSON.
const defaultFeed = "audits"

var feedName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

func (o Options) feed() string { return cmp.Or(o.Feed, defaultFeed) }

// withDefaults validates o and returns it with its defaults.
func (o Options) withDefaults() (Options, error) {
	o.Table = cmp.Or(o.Table, "public."+o.feed())
	if !feedName.MatchString(o.feed()) || o.Feed == "sse" {
		return o, usagef("--feed %q: give a name of 1 to 31 letters from a to z, digits and _, that begins with a letter and is not sse", o.Feed)
	}
	var refused refusals
	for _, name := range slices.Sorted(maps.Keys(o.Columns)) {
		if name != "id" && name != "group_id" && !slices.Contains(viewColumns, name) {
			refused.add(usagef("--column %s=%s: there is no column %q to map; it can be id, group_id, %s", name, o.Columns[name], name, strings.Join(viewColumns, ", ")))
		}
		if o.Columns[name] == "" && (name == "id" || name == "status") {
			refused.add(usagef("--column %s=: the column %[1]s cannot be left out; name the column of your table that holds it", name))
		}
	}
	if len(refused) > 0 {
		return o, refused.err()
	}
	if o.LockTimeout < 0 || o.LockWait < 0 {
		return o, usagef("invalid lock time-outs %v (one attempt) and %v (in all): want durations of 0 or more", o.LockTimeout, o.LockWait)
	}
	// PostgreSQL counts in milliseconds, and 0 means for ever, which must not happen.
	o.LockTimeout = max(cmp.Or(o.LockTimeout, 200*time.Millisecond), time.Millisecond)
	o.LockWait = max(cmp.Or(o.LockWait, 30*time.Second), time.Millisecond)
	o.Ends = slices.Clone(o.Ends)
	for i, word := range o.Ends {
		o.Ends[i] = lower(strings.TrimSpace(word))
	}
	o.Deleted = lower(strings.TrimSpace(o.Deleted))
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return o, nil
}
