// Package sql is what runs inside the database: the view auditstream.progress, which is all that the server reads,
// and the triggers that announce its changes on [Channel].
//
// The three .sql files can be run by psql as they stand, for the table of audits.sql. [Install] and [Uninstall] run
// the same text for a table that another application owns: they read its columns from the catalog and fill in the
// variables. Whatever is unusual about a table is adapted in the view, so nothing else has to know about it.
//
// The rule that keeps it right: the application comes first. Whatever is installed must not be able to make one of
// its statements fail or wait. So the trigger function names nothing that can go away, the conditions of the triggers
// cannot raise an error, and the table's lock is asked for in short attempts and held for milliseconds.
//
// What install.sql makes has a version, [SchemaVersion], which the comment on the view tells. An upgrade is an install: it
// replaces what is there in one transaction that ends by ringing for everything, so that a serve that runs registers what is
// watched with the new triggers. The view, the channel, the payloads and what serve calls are the same in all versions.
//
// One thing that PostgreSQL does not let us hide: a column that a view or a trigger's condition uses cannot change its
// type, nor be dropped, until it is uninstalled. Renaming columns and the table works.
package sql
