package service

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"auditstream/internal/pgnotify"
	"auditstream/internal/sql"
)

// schemaWatch says in the log when the database's schema is not of this program's version, and when it is again. It is the
// feeds, as far as the listener can tell: the listener's resyncs, which follow each install and each connection, are when
// another version may be there, or another feed.
type schemaWatch struct {
	*feeds
	db     sql.Querier
	logger *slog.Logger
	look   pgnotify.Bell
	told   string // what was last complained of; "": nothing
	drift  *driftWatch
	// alwaysRings is that triggers ask nobody: those of version 1, and those that somebody wrote by hand.
	alwaysRings atomic.Bool
}

var _ pgnotify.Sink = (*schemaWatch)(nil)

func newSchemaWatch(all *feeds, db sql.Querier, drift *driftWatch, logger *slog.Logger) *schemaWatch {
	return &schemaWatch{feeds: all, db: db, drift: drift, logger: logger, look: pgnotify.NewBell()}
}

// Resync has Watch look and then does what the feeds' does.
func (w *schemaWatch) Resync() {
	w.look.Ring()
}

const (
	// lookEvery is the longest time for which rows are shown by what is not there any more.
	lookEvery = time.Minute
	// lookRest bounds how often others can have the catalog read, by notifying. A resync within it waits for nothing.
	lookRest = time.Second
	// lookAgain is how soon it is looked again for feeds where the database did not answer: until then streams of all but audits are
	// told to come back, where it did not answer since the start.
	lookAgain = time.Second / 2
	// lookTimeout is how long a resync waits for either answer.
	lookTimeout = 2 * time.Second
)

// Watch looks at once, at each resync, and once a minute, until ctx is done, and returns nil. What is shown after a resync has been looked at
// before, or less than a second ago.
func (w *schemaWatch) Watch(ctx context.Context) error {
	resync, passed, looked := true, false, time.Time{} // passed: the hub knows of the resync
	next := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(next)):
		case <-w.look:
			resync = true
			if since := time.Since(looked); since < lookRest {
				passed = true
				w.feeds.Resync()
				next = looked.Add(lookRest)
				continue
			}
		}
		known, changed := true, false
		if resync {
			known = w.feeds.look(ctx)
		}
		if known { // else each would only wait for its own time-out
			if resync {
				w.compare(ctx)
			}
			print := w.drift.print
			changed = w.drift.look(ctx, resync)
			if !resync && w.drift.print != print { // where no install is heard of
				known = w.feeds.look(ctx)
			}
		}
		if changed || resync && !passed {
			w.feeds.Resync()
		}
		resync, passed, looked = !known, !known, time.Now()
		if next = looked.Add(lookEvery); !known {
			next = looked.Add(lookAgain)
		}
	}
}

func (w *schemaWatch) compare(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	s, err := sql.ReadSchema(ctx, w.db)
	if err != nil {
		w.logger.Debug("the schema's version is not known", "error", err) // the next connection brings us here again
		return
	}
	w.alwaysRings.Store(s.Version <= 1)
	versions := []any{"schema", s.Version, "program", sql.SchemaVersion}
	remedy := append(versions, "run", InstallCommand(s), "until_then", cmp.Or(s.Lacks(), "all works"))
	complaint := ""
	switch {
	case s.Version > sql.SchemaVersion:
		complaint, remedy = "the database's schema is newer than this program: upgrade the program", versions
	case s.Version == 0: // by hand, or not there
	case s.Version < sql.SchemaVersion:
		complaint = "the database's schema is older than this program: upgrade it with auditstream install"
	}
	// A later complaint of another version is another one.
	said := complaint
	if said != "" {
		said = fmt.Sprint(s.Version, said)
	}
	if said == w.told {
		return
	}
	switch {
	case complaint != "":
		w.logger.Warn(complaint, remedy...)
	case s.Version != 0:
		w.logger.Info("the database's schema is of this program's version now", versions...)
	}
	w.told = said
}
