package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// MaxOwned is how many rows of one owner Owned returns, the newest ones. An owner reaches it only with hundreds of rows whose status
// does not end them.
const MaxOwned = 500

// ownerRowsSQL joins one query for each kind of owner, so that each can use an index or a hash; one query with "or" would compare every
// row with every owner. A user_id without a visible ASCII character is treated as if it might be blank, so that no row is missed. The rows
// of an owner are numbered instead of limited: for LIMIT, PostgreSQL would read a large table by its key from the end.
func ownerRowsSQL(f *Feed, key, id string) string {
	order := "p." + key
	if f.Key != IntegerKeys {
		order += `::text collate "C"`
	}
	of := func(n int, condition string) string {
		return fmt.Sprintf(`select %d, n, id from (
	select o.n, p.%s as id, row_number() over (partition by o.n order by %s desc) as newest
	from unnest($%[1]d::text[]) with ordinality as o(name, n) join %[4]s as p on %[5]s
	where coalesce(p.status, 'pending') <> all ($5::text[])) p where newest <= %[6]d`, n, id, order, f.View, condition, MaxOwned+1)
	}
	queries := []string{
		of(1, "p.user_id = o.name"),
		of(2, `regexp_replace(lower(p.user_email collate "C"), '[^ -~]', '', 'g') = o.name and coalesce(p.user_id, '') collate "C" !~ '[!-~]'`),
	}
	// Without groups or a public feed these return no row (the argument is never null) and only give the argument its type.
	third, fourth := `select 3, 0, null where $3::text[] is null`, `select 4, 0, null where $4::text[] is null`
	if f.Groups {
		third = of(3, "p.group_id = o.name")
	}
	if f.Public {
		fourth = of(4, "true")
	}
	return strings.Join(append(queries, third, fourth, oneProcess), "\nunion all\n")
}

// oneProcess returns no row, and set_config is never called ($5 is never null). But PostgreSQL plans no parallel workers for a query with a
// function that is parallel unsafe (max_parallel_hazard in clauses.c): a user who asks for all of theirs in a large table without an index
// should not take every processor. The setting max_parallel_workers_per_gather would need a transaction, or a start-up parameter, which
// poolers refuse.
const oneProcess = `select 0, 0, null where $5::text[] is null and set_config('application_name', '', true) is null`

// Owned returns the keys of the rows that have not ended and may belong to one of the owners, each key once, and the owners who have more
// than MaxOwned. It misses no other row, but may return rows of others: the [State] of a row says whose it is. It runs one query, unless
// the database's encoding does not have a character of an owner's name: then it halves the owners until that one is alone, which has no
// rows. The error wraps pgx's.
func (s *Store) Owned(ctx context.Context, owners []Owner) (ids []Key, more []Owner, err error) {
	ids, more, err = s.queryOwnerRows(ctx, owners)
	switch {
	case err == nil:
		return ids, more, nil
	case !isEncodingError(err) || len(owners) == 0:
		return nil, nil, fmt.Errorf("find owners' rows: %w", err)
	case len(owners) == 1:
		return nil, nil, nil
	}
	half := len(owners) / 2
	ids, more, err = s.Owned(ctx, owners[:half])
	if err != nil {
		return nil, nil, err
	}
	right, rest, err := s.Owned(ctx, owners[half:])
	if err != nil {
		return nil, nil, err
	}
	ids = append(ids, right...)
	slices.Sort(ids)
	return slices.Compact(ids), append(more, rest...), nil
}

func (s *Store) queryOwnerRows(ctx context.Context, owners []Owner) (ids []Key, more []Owner, err error) {
	names := [everyone + 1][]string{{}, {}, {}, {}, {}} // empty, because nil would be sent as null
	ownersByKind := [everyone + 1][]Owner{}
	for _, o := range owners {
		name := o.name
		if o.kind == emailOwner {
			name = o.asciiEmail()
		}
		if o.kind != 0 {
			names[o.kind], ownersByKind[o.kind] = append(names[o.kind], name), append(ownersByKind[o.kind], o)
		}
	}
	rows, err := s.db.Query(ctx, s.sql.ownerRows, names[subjectOwner], names[emailOwner], names[groupOwner], names[everyone], s.feed.endings())
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	seen, found := make(map[Key]bool), make(map[Owner]int)
	for rows.Next() {
		var kind ownerKind
		var n int
		var key Key
		if err := rows.Scan(&kind, &n, &key); err != nil {
			return nil, nil, err
		}
		owner := ownersByKind[kind][n-1]
		if found[owner]++; found[owner] > MaxOwned {
			more = append(more, owner)
		} else if !seen[key] {
			seen[key] = true
			ids = append(ids, key)
		}
	}
	return ids, more, rows.Err()
}

// isEncodingError reports whether a query failed because the database's encoding does not have a character: SQLSTATE 22021 and 22P05.
func isEncodingError(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code == "22021" || pgErr.Code == "22P05")
}
