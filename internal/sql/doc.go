// Package sql is what runs inside the database: for each feed, a table that is adopted, a view that shows the server the application's rows, and
// triggers that announce their changes on [Channel] when somebody watches.
//
// The three .sql files can be run by psql as they stand, for the table of audits.sql. [Install] and [Uninstall] run the same text for a
// table that another application owns: they read its columns from the catalog and fill in the variables. Whatever is unusual about a
// table is adapted in the view, so nothing else has to know about it: sources (source.go), words, fields, lookups, rings, or a query of the
// operator's (view.go). What a feed's objects are called is in naming.go, what was chosen in auditstream.choices (choices.go).
//
// The rule that keeps it right: the application comes first, and trusts us with nothing. No statement of its may fail or wait because of
// us: the conditions of the triggers cannot raise an error, and the table's lock is asked for in short attempts and held for
// milliseconds. No code of ours runs with anybody else's rights, and no code of a table's or type's owner runs with ours.
//
// What install.sql makes has a version, [SchemaVersion]. An upgrade is an install: it replaces what is there in one transaction that ends
// by notifying of everything. A column that a view or a condition uses cannot change its type, nor be dropped, until it is uninstalled.
package sql
