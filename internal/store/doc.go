// Package store reads the rows of one feed from its view (auditstream.progress for the feed audits). The view hides how the
// application's table looks.
//
// The rule that keeps it right: the row is the truth. A [State] is the result of one committed read and never changes afterwards.
// Everything that a viewer sees (JSON, fingerprint, owner) is computed from it and from nothing else.
//
// Who calls what: package service makes one [Store] for each feed. The hub of package pgnotify calls [Store.Rows] and [Store.Owned], each
// from one goroutine. Package server reads States and asks [Row.OwnedBy]. This package imports no other of ours.
//
// Files, in the order in which to read them: key.go and feed.go (what a row is called), row.go (the row and its JSON), owner.go (who
// may see it), state.go (what one read found), store.go with statements.go (the read), row_size.go and unreadable_rows.go (one bad
// row costs the others nothing), owner_rows.go (all rows of a user), queue_usage.go.
package store
