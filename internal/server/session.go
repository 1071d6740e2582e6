package server

import (
	"errors"
	"net/http"
	"time"

	"auditstream/internal/store"
)

// Viewer is who asks, as [Config.Viewer] knows them.
type Viewer struct {
	store.Viewer
	// Expires is when an open stream ends; zero: never before its time.
	Expires time.Time
}

// The errors of [Config.Viewer] that refuse for good. Any other passes: the client is told to come back.
var (
	// ErrUnauthenticated is that nobody is known to ask; answered 401.
	ErrUnauthenticated = errors.New("nobody is signed in")
	// ErrDenied is that they may not see what they ask for; answered 403.
	ErrDenied = errors.New("access is denied")
	// ErrNotFound is that there is nothing of that name for them; answered 404.
	ErrNotFound = errors.New("there is no such row")
)

// never is later than any stream.
var never = time.Unix(1<<40, 0)

// ask finds out who asks by Config.Viewer. What its error says is for the log alone.
func (s *Handler) ask(r *http.Request) (viewer, error) {
	who, err := s.cfg.Viewer(r)
	switch {
	case errors.Is(err, ErrUnauthenticated):
		return viewer{}, because(errMissingToken, err)
	case errors.Is(err, ErrDenied):
		return viewer{}, because(errForbidden, err)
	case errors.Is(err, ErrNotFound):
		return viewer{}, because(errNoAudit, err)
	case err != nil:
		return viewer{}, because(errUnavailable, err)
	}
	if who.Expires.IsZero() {
		who.Expires = never
	}
	return viewer{Viewer: who.Viewer, expires: who.Expires}, nil
}
