package sql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A Feed is one adopted table, as recorded in auditstream.choices.
type Feed struct {
	Name string
	// View is the view that serve reads, quoted and with its schema.
	View string
	// Key is the type of the keys: uuid, text, or empty for integers.
	Key string
	// Mix is the number that the triggers mix into the hash of a key.
	Mix int32
	// Ends are the statuses that end a row, besides completed and failed.
	Ends []string
	// Deleted is the status that viewers see when a row that they watch is deleted; empty means that the row is gone.
	Deleted string
	// Public says that every viewer may see every row. Groups and Fields say that the view has the columns group_id and fields.
	Public, Groups, Fields bool
}

// Feeds returns the feeds of the database. Audits is among them when its view is handwritten, or when there is no other feed. It takes one
// statement, and the right to read auditstream.choices, which serve has; without that right it returns only audits.
func Feeds(ctx context.Context, q Querier) ([]Feed, error) {
	var text string
	var audits bool
	err := q.QueryRow(ctx, `select exists (select from pg_catalog.pg_class k join pg_catalog.pg_namespace n on n.oid = k.relnamespace where n.nspname = 'auditstream' and k.relname = 'progress'), coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(pg_catalog.format('%s', c.feed), pg_catalog.format('%s', c.options)) order by c.feed), '[]')::text
		from only auditstream.choices c tablesample pg_catalog.system (100)`).Scan(&audits, &text)
	refused, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case errors.Is(err, pgx.ErrNoRows), ok && (refused.Code == "42P01" || refused.Code == "3F000" || refused.Code == "42501" || refused.Code == "42703" || refused.Code == "42809"):
		return []Feed{handwrittenFeed}, nil
	case err != nil:
		return nil, fmt.Errorf("read auditstream.choices: %w", err)
	}
	var rows [][2]string
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		return nil, fmt.Errorf("auditstream.choices is not as install makes it (run auditstream install again): %w", err)
	}
	var feeds []Feed
	for _, row := range rows {
		var c chosenOptions
		if name := row[0]; feedName.MatchString(name) && json.Unmarshal([]byte(row[1]), &c) == nil {
			n := naming(name)
			feeds = append(feeds, Feed{Name: name, View: "auditstream." + n.view(), Key: c.Key, Mix: n.mix(), Ends: c.Ends, Deleted: c.Deleted, Public: c.Public, Groups: c.Groups, Fields: c.HasFields})
		}
	}
	if len(feeds) == 0 || audits && !slices.ContainsFunc(feeds, func(f Feed) bool { return f.Name == defaultFeed }) {
		feeds = append(feeds, handwrittenFeed)
	}
	return feeds, nil
}

// handwrittenFeed is the feed of a handwritten view.
var handwrittenFeed = Feed{Name: defaultFeed, View: "auditstream.progress"}
