package auditstream

import (
	"errors"

	"auditstream/internal/server"
	"auditstream/internal/service"
	"auditstream/internal/sql"
)

// The errors that [errors.Is] finds. [Options].Viewer may return the first three, wrapped in a text for the log: the client is answered
// 401, 403 or 404, and does not try again. Any other error of a Viewer counts as temporary: a stream is told to reconnect later, and other
// requests are answered 503. An error's text goes to the log and never to the client.
var (
	// ErrUnauthenticated: the request does not say who sends it.
	ErrUnauthenticated = server.ErrUnauthenticated
	// ErrDenied: the viewer may not see the row, or the role lacks the rights to install.
	ErrDenied = server.ErrDenied
	// ErrNotFound: there is no such row, or it was deleted.
	ErrNotFound = server.ErrNotFound
	// ErrNoFeed: no table was adopted under this name.
	ErrNoFeed = server.ErrNoFeed
	// ErrNotInstalled: no table of this database was adopted, or the pool's role may not read the schema: see [Install] and [Table].Role.
	ErrNotInstalled = service.ErrNotInstalled
	// ErrStopped: Run has returned.
	ErrStopped = service.ErrStopped
)

// UsageError is a mistake in [Options], a [Table] or a [Key]: the same call fails again. [errors.AsType] finds it.
type UsageError struct{ Message string }

func (e UsageError) Error() string { return e.Message }

// translateError returns an internal package's error as this package's, with the names of Options and Table in its text.
func translateError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[sql.UsageError](err); ok { // or several, joined
		return UsageError{optionNames.Replace(err.Error())}
	}
	if lacking, ok := errors.AsType[sql.RightsError](err); ok {
		return denied{lacking}
	}
	return err
}

// denied is an [ErrDenied] that says which rights are missing.
type denied struct{ error }

func (d denied) Unwrap() []error { return []error{ErrDenied, d.error} }
