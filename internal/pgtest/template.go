package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"time"
)

// A Template is a database that many tests begin with: it is prepared when the first of them asks, and copied for each,
// which takes a fraction of the time. Safe for concurrent use.
type Template struct {
	// Prepare fills an empty database, given by the superuser's URL, and leaves no connection to it: PostgreSQL copies only
	// what nobody uses. It fails tb when it cannot.
	Prepare func(tb TB, dsn string)

	mu   sync.Mutex
	name string // empty: not prepared yet
}

// New returns the URL, for the superuser, of a copy that is the test's own, and is dropped or kept like New's.
func (t *Template) New(tb TB) string {
	tb.Helper()
	s, err := sharedServer()
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	return s.newDatabase(tb, t.prepared(tb, s))
}

// prepared is the template's name. A test that fails to prepare it leaves that to the next one.
func (t *Template) prepared(tb TB, s *server) string {
	tb.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.name != "" {
		return t.name
	}
	name := "template_" + strings.ToLower(rand.Text()[:12])
	s.create(tb, name, emptyTemplate)
	dsn, err := withDatabase(s.dsn, name)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	shared.mu.Lock()
	shared.templates = append(shared.templates, name)
	shared.mu.Unlock()
	t.Prepare(tb, dsn)
	t.name = name
	return name
}

// drop is for the templates in a server that lives on after the tests.
func (s *server) drop(names []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	for _, name := range names {
		errs = append(errs, s.exec(ctx, "drop database if exists "+quote(name)+" with (force)"))
	}
	return errors.Join(errs...)
}
