// Package store reads audits from the view auditstream.progress, which hides how the application's table looks.
//
// The rule that keeps it right: the row is the truth. A [State] is what one committed read found, it is never changed
// afterwards, and everything that a viewer is shown (JSON, fingerprint, owner) is derived from it and from nothing else.
package store
