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

// schemaWatch logs when the database's schema is not of this program's version, and when it is again. It stands between the listener and
// the feeds, because the listener's resync follows each install and each connection: then the schema, the feeds or the locks may be
// different.
type schemaWatch struct {
	*feeds
	db            sql.Querier
	logger        *slog.Logger
	resyncs       pgnotify.Bell
	lastComplaint string // the last warning about the version; "": none, or resolved
	// alwaysNotifies: the triggers notify whether somebody watches or not. Those of version 1 do, and those that are written by hand.
	alwaysNotifies atomic.Bool
}

var _ pgnotify.Sink = (*schemaWatch)(nil)

func newSchemaWatch(all *feeds, db sql.Querier, logger *slog.Logger) *schemaWatch {
	return &schemaWatch{feeds: all, db: db, logger: logger, resyncs: pgnotify.NewBell()}
}

// Resync makes Watch check the schema and then resync the feeds, and the registrar check its locks. It does not block.
func (w *schemaWatch) Resync() {
	w.resyncs.Ring()
	w.registrar.Look()
}

const (
	// checkInterval is the longest time for which rows are shown through a view whose table was replaced.
	checkInterval = time.Minute
	// minCheckGap is the least time between two reads of the catalog, since any role can cause one by a notification. A resync that
	// comes sooner reaches the feeds at once, and the check follows.
	minCheckGap = time.Second
	// checkRetryDelay is the time after which the feeds are read again if the database did not answer. If it has not answered since the
	// start, streams of all feeds but audits are told to come back later until then.
	checkRetryDelay = time.Second / 2
	// checkTimeout is how long a resync waits for each of the queries: the feeds, the version, the drift.
	checkTimeout = 2 * time.Second
)

// Watch checks at once, at each resync, and once a minute, until ctx is done, and returns nil. Rows that are shown after a resync were
// checked after it, or less than a second before.
func (w *schemaWatch) Watch(ctx context.Context) error {
	resync, hubsTold, checkedAt := true, false, time.Time{} // hubsTold: the hubs got the resync already
	next := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(next)):
		case <-w.resyncs:
			resync = true
			if since := time.Since(checkedAt); since < minCheckGap {
				hubsTold = true
				w.feeds.Resync()
				next = checkedAt.Add(minCheckGap)
				continue
			}
		}
		known, changed := true, false
		if resync {
			known = w.feeds.reload(ctx)
		}
		if known { // otherwise each query would only wait for its timeout
			if resync {
				w.compare(ctx)
			}
			print := w.drift.print
			changed = w.drift.check(ctx, resync)
			if !resync && w.drift.print != print { // an install whose notification did not come
				known = w.feeds.reload(ctx)
			}
		}
		if changed || resync && !hubsTold {
			w.feeds.Resync()
		}
		resync, hubsTold, checkedAt = !known, !known, time.Now()
		if next = checkedAt.Add(checkInterval); !known {
			next = checkedAt.Add(checkRetryDelay)
		}
	}
}

func (w *schemaWatch) compare(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	s, err := sql.ReadSchema(ctx, w.db)
	if err != nil {
		w.logger.Debug("the schema's version is not known", "error", err) // the next connection causes another check
		return
	}
	w.alwaysNotifies.Store(s.Version <= 1)
	versions := []any{"schema", s.Version, "program", sql.SchemaVersion}
	remedy := append(versions, "run", InstallCommand(s), "until_then", cmp.Or(s.Lacks(), "all works"))
	complaint := ""
	switch {
	case s.Version > sql.SchemaVersion:
		complaint, remedy = "the database's schema is newer than this program: upgrade the program", versions
	case s.Version == 0: // written by hand, or not installed
	case s.Version < sql.SchemaVersion:
		complaint = "the database's schema is older than this program: upgrade it with auditstream install"
	}
	// The same complaint about another version is logged again.
	said := complaint
	if said != "" {
		said = fmt.Sprint(s.Version, said)
	}
	if said == w.lastComplaint {
		return
	}
	switch {
	case complaint != "":
		w.logger.Warn(complaint, remedy...)
	case s.Version != 0:
		w.logger.Info("the database's schema is of this program's version now", versions...)
	}
	w.lastComplaint = said
}
