package main

import "context"

// locks checks that serve can take the locks by which triggers learn what is watched: their numbers are in the view auditstream.feeds.
func (d *doctor) locks(ctx context.Context) []finding {
	if d.otherVersion {
		return nil // reported already
	}
	var name string
	var there, may bool
	var locks int
	err := d.pool.QueryRow(ctx, `
		select current_user, f.oid is not null, coalesce(has_table_privilege(f.oid, 'select') and has_schema_privilege(n.oid, 'usage'), false),
		       current_setting('max_locks_per_transaction')::int * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int)
		from pg_namespace n left join pg_class f on f.relnamespace = n.oid and f.relname = 'feeds' and f.relkind = 'v'
		where n.nspname = 'auditstream'`).Scan(&name, &there, &may, &locks)
	switch {
	case err != nil:
		return []finding{unanswered("feeds", err)}
	case !there:
		return []finding{fail("Run auditstream install again: it repairs that.",
			"there is no view auditstream.feeds, so the triggers cannot learn what is watched, and changes are found by polling alone")}
	case !may:
		return []finding{fail("Run auditstream install again with --role "+name+".",
			"role %s may not read auditstream.feeds, so changes are found by polling alone", name)}
	}
	var class, buckets int
	err = d.pool.QueryRow(ctx, `select class, buckets from auditstream.feeds where feed = 'audits'`).Scan(&class, &buckets)
	if err != nil {
		return []finding{unanswered("feeds", err)}
	}
	return []finding{judgeLocks(class, buckets, locks)}
}

// judgeLocks makes the finding from the class and the number of a feed's locks, and the size of the server's lock table. An instance of serve
// may take all the locks; when the table is full, the application's statements fail.
func judgeLocks(class, buckets, table int) finding {
	if buckets < 1 || buckets&(buckets-1) != 0 {
		return fail("Run auditstream install again: it repairs that.", "locks: auditstream.feeds says %d buckets, want a power of two", buckets)
	}
	if buckets > table/3 {
		return warn("Raise max_locks_per_transaction, or uninstall and install again, which chooses fewer.",
			"locks: an instance of serve takes up to %d of class %d, and the lock table holds %d for everybody", buckets, class, table)
	}
	return ok("locks: an instance of serve takes up to %d of class %d; the lock table holds %d", buckets, class, table)
}
