package auditstream

import (
	"errors"

	"auditstream/internal/server"
	"auditstream/internal/service"
	"auditstream/internal/sql"
)

// The errors that [errors.Is] finds. The first three are also for [Options].Viewer to return, wrapped in what the log is to say: the
// client is answered 401, 403 and 404 for good. Any other error of a Viewer passes: a stream is told to come back, and other requests are
// answered 503. What an error says goes to the log and never to the client.
var (
	// ErrUnauthenticated is that nobody is known to ask.
	ErrUnauthenticated = server.ErrUnauthenticated
	// ErrDenied is that somebody may not: see what they ask for, or install.
	ErrDenied = server.ErrDenied
	// ErrNotFound is that there is no such row, or none any more.
	ErrNotFound = server.ErrNotFound
	// ErrNoFeed is that no table was adopted under this name.
	ErrNoFeed = server.ErrNoFeed
	// ErrNotInstalled is that no table of this database was adopted, or that the pool's role may not know: see [Install] and [Table].Role.
	ErrNotInstalled = service.ErrNotInstalled
	// ErrStopped is that Run has returned.
	ErrStopped = service.ErrStopped
)

// UsageError is a mistake in [Options], a [Table] or a [Key], which waiting cannot mend. [errors.AsType] finds it.
type UsageError struct{ Message string }

func (e UsageError) Error() string { return e.Message }

// named is an error of what this package is made of, in the names of this package.
func named(err error) error {
	if err == nil {
		return nil
	}
	if mistake, ok := errors.AsType[sql.UsageError](err); ok {
		return UsageError{names.Replace(mistake.Message)}
	}
	if lacking, ok := errors.AsType[sql.RightsError](err); ok {
		return denied{lacking}
	}
	return err
}

// denied is an [ErrDenied] that says what is missing.
type denied struct{ error }

func (d denied) Unwrap() []error { return []error{ErrDenied, d.error} }
