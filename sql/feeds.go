package sql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A Feed is one adopted table, as auditstream.feeds describes it. What a column says that an earlier version did not have is zero.
type Feed struct {
	Name string `json:"feed"`
	// View is what serve reads, quoted and with its schema.
	View string `json:"view"`
	// Key is the keys' type: uuid, text, or empty for integers.
	Key string `json:"key"`
	// Mix is the number that the triggers mix into the keys' hashes.
	Mix int32 `json:"mix"`
	// Ends are the statuses besides completed and failed after which nothing more is expected.
	Ends []string `json:"ends"`
	// Public says that every viewer may see every row. Groups and Fields say that the view has group_id, and fields.
	Public bool `json:"public"`
	Groups bool `json:"groups"`
	Fields bool `json:"fields"`
}

// Feeds returns what is adopted in the database; none where nothing says so, as where the view was written by hand.
func Feeds(ctx context.Context, q Querier) ([]Feed, error) {
	var text string
	err := q.QueryRow(ctx, `select coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(f)), '[]')::text from auditstream.feeds f`).Scan(&text)
	refused, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case errors.Is(err, pgx.ErrNoRows), ok && (refused.Code == "42P01" || refused.Code == "3F000" || refused.Code == "42501"):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read auditstream.feeds: %w", err)
	}
	var feeds []Feed
	if err := json.Unmarshal([]byte(text), &feeds); err != nil {
		return nil, fmt.Errorf("auditstream.feeds is not as install makes it: %w", err)
	}
	return feeds, nil
}
