package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// MaxOwned is how many rows of one owner are found, the newest. Whoever has more watches thousands of rows in a status that ends nothing.
const MaxOwned = 500

// ownedSQL is a query for each kind of owner, so that each can use an index or a hash: with "or" it would compare every row to every
// owner. A user_id in which no character of ASCII can be seen may be blank. It numbers an owner's rows instead of cutting them off by
// LIMIT, for which PostgreSQL would read a large table by its key from the end.
func ownedSQL(f *Feed, key, id string) string {
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
	third, fourth := `select 3, 0, null where $3::text[] is null`, `select 4, 0, null where $4::text[] is null` // neither is
	if f.Groups {
		third = of(3, "p.group_id = o.name")
	}
	if f.Public {
		fourth = of(4, "true")
	}
	return strings.Join(append(queries, third, fourth), "\nunion all\n")
}

// Owned returns the ids of the audits that may belong to one of the owners and have not ended, each once, and of which owners there are
// more than MaxOwned; it misses none else. Whether one really is an owner's, its [State] says. It is one query, unless an owner's name is one that the
// database's encoding does not have: the owners are then halved until that one is alone, and has nothing. The error is pgx's, wrapped.
func (s *Store) Owned(ctx context.Context, owners []Owner) (ids []Key, more []Owner, err error) {
	ids, more, err = s.queryOwned(ctx, owners)
	switch {
	case err == nil:
		return ids, more, nil
	case !noSuchText(err) || len(owners) == 0:
		return nil, nil, fmt.Errorf("find owners' audits: %w", err)
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

func (s *Store) queryOwned(ctx context.Context, owners []Owner) (ids []Key, more []Owner, err error) {
	names := [everybody + 1][]string{{}, {}, {}, {}, {}} // none is null
	asked := [everybody + 1][]Owner{}
	for _, o := range owners {
		name := o.name
		if o.kind == byEmail {
			name = o.asciiEmail()
		}
		if o.kind != 0 {
			names[o.kind], asked[o.kind] = append(names[o.kind], name), append(asked[o.kind], o)
		}
	}
	rows, err := s.db.Query(ctx, s.sql.owned, names[bySubject], names[byEmail], names[ofGroup], names[everybody], s.feed.endings())
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	seen, found := make(map[Key]bool), make(map[Owner]int)
	for rows.Next() {
		var kind ownerKind
		var n int
		var number int64
		var key Key
		id := any((*string)(&key))
		if s.feed.Key == IntegerKeys {
			id = &number
		}
		if err := rows.Scan(&kind, &n, id); err != nil {
			return nil, nil, err
		}
		if s.feed.Key == IntegerKeys {
			key = IntKey(number)
		}
		owner := asked[kind][n-1]
		if found[owner]++; found[owner] > MaxOwned {
			more = append(more, owner)
		} else if !seen[key] {
			seen[key] = true
			ids = append(ids, key)
		}
	}
	return ids, more, rows.Err()
}

// noSuchText reports whether a query failed because the database cannot hold a text: SQLSTATE 22021 and 22P05.
func noSuchText(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code == "22021" || pgErr.Code == "22P05")
}
