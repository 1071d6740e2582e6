package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Template is a database with which many tests begin. The first New prepares it, and each New copies it, which takes a fraction of the time.
// Safe for concurrent use.
type Template struct {
	// Prepare fills an empty database, for which it gets the superuser's URL, or fails tb. It must close all connections to the database,
	// because PostgreSQL does not copy one that is in use.
	Prepare func(tb testing.TB, dsn string)

	mu   sync.Mutex
	name string // empty: not prepared yet
}

// New returns the superuser's URL of a new copy, which is dropped or kept like a database of the function New.
func (t *Template) New(tb testing.TB) string {
	tb.Helper()
	s, err := sharedServer()
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	return s.newDatabase(tb, t.prepare(tb, s))
}

// prepare returns the template's name, and prepares it if necessary. If that fails the test, the next test tries again.
func (t *Template) prepare(tb testing.TB, s *server) string {
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

// drop drops the templates on a server that lives on after the tests.
func (s *server) drop(names []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	for _, name := range names {
		errs = append(errs, s.exec(ctx, "drop database if exists "+quote(name)+" with (force)"))
	}
	return errors.Join(errs...)
}
