package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// owned is two queries, so that each can use an index or a hash: with "or" it would compare every row to every owner. A user_id in
// which no character of ASCII can be seen may be blank.
const owned = `
select p.audit_id
from unnest($1::text[]) as o(subject)
join auditstream.progress as p on p.user_id = o.subject
where coalesce(p.status, 'pending') not in ('completed', 'failed')
union
select p.audit_id
from unnest($2::text[]) as o(email)
join auditstream.progress as p on regexp_replace(lower(p.user_email collate "C"), '[^ -~]', '', 'g') = o.email
where coalesce(p.user_id, '') collate "C" !~ '[!-~]' and coalesce(p.status, 'pending') not in ('completed', 'failed')`

// Owned returns the ids of the audits that may belong to one of the owners and have not ended, each once; it misses none.
// Whether one really is an owner's, its [State] says. It is one query, unless an owner's name is one that the database's
// encoding does not have: the owners are then halved until that one is alone, and has nothing. The error is pgx's, wrapped.
func (s *Store) Owned(ctx context.Context, owners []Owner) ([]Key, error) {
	ids, err := s.queryOwned(ctx, owners)
	switch {
	case err == nil:
		return ids, nil
	case !noSuchText(err) || len(owners) == 0:
		return nil, fmt.Errorf("find owners' audits: %w", err)
	case len(owners) == 1:
		return nil, nil
	}
	half := len(owners) / 2
	left, err := s.Owned(ctx, owners[:half])
	if err != nil {
		return nil, err
	}
	right, err := s.Owned(ctx, owners[half:])
	if err != nil {
		return nil, err
	}
	all := append(left, right...)
	slices.Sort(all)
	return slices.Compact(all), nil
}

func (s *Store) queryOwned(ctx context.Context, owners []Owner) ([]Key, error) {
	subjects, emails := []string{}, []string{} // not null
	for _, o := range owners {
		if o.subject != "" {
			subjects = append(subjects, o.subject)
		} else if o.email != "" {
			emails = append(emails, o.asciiEmail())
		}
	}
	rows, err := s.db.Query(ctx, owned, subjects, emails)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Key, error) {
		var id int64
		err := row.Scan(&id)
		return IntKey(id), err
	})
}

// noSuchText reports whether a query failed because the database cannot hold a text: SQLSTATE 22021 and 22P05.
func noSuchText(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code == "22021" || pgErr.Code == "22P05")
}
