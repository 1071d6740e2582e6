// Package sql is what runs inside the database. For each feed that is an adopted table, a view that shows its rows to the server, and
// triggers that notify of changes on [Channel] when somebody watches.
//
// psql can run the .sql files as they are, for the table of audits.sql. [Install] and [Uninstall] run the same text for a table of another
// application: they read its columns from the catalog and fill in the variables. The view adapts whatever is unusual about a table, so
// that nothing else has to know it.
//
// The rule that keeps it right: the application comes first, and need not trust us. No statement of the application may fail or wait
// because of us: the triggers' conditions cannot raise an error, and install asks for the table's lock in short attempts and holds it for
// milliseconds, about one for each partition. No code of ours runs with the rights of others, and no code of the owner of a table or type runs with ours.
//
// install.sql has a version, [SchemaVersion]. An upgrade is an install: one transaction replaces what is there, and then all instances
// are notified to read everything. While it is installed, a column that a view or a condition uses can neither change its type nor be
// dropped.
//
// Who calls what: the commands, package service, the root package and auditstreamtest call the exported functions, with a connection that is
// not in a transaction. This package imports no other of ours, and the server does not import it.
//
// Files, in the order in which to read them: install.sql, uninstall.sql, audits.sql and feed.sql, with template.go, which fills them in.
// To decide: options.go, plan.go, plan_install.go, uninstall.go; install.go runs a plan. What is there: table.go (the application's
// table), installation.go (an earlier install), choices.go and left_out.go (what was chosen), version.go, feed.go. How a table is shown: columns.go,
// key.go, source.go, expressions.go, words.go, fields.go, hide.go, lookup.go, rings.go, view.go (the operator's own query), naming.go. The script:
// script.go, grants.go, rights.go, as_owner.go, ownership.go, buckets.go, table_lock.go, holders.go. What operators are told: sample.go, status.go,
// drift.go and drift_rights.go, fingerprint.go, backup.go. query.go has the helpers.
package sql
