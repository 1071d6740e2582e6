package pgnotify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// feed is what the triggers' conditions ask for, as auditstream.feeds says; zero: there are none that ask.
type feed struct {
	class, buckets int32
}

// announcement gives a Registrar the session that holds the locks, once it is known that it is one, and what the triggers ask for. It
// belongs to the goroutine that waits on the session's connection.
type announcement struct {
	registrar *Registrar // nil: nothing is announced
	logger    *slog.Logger
	timeout   time.Duration
	errands   *errands

	told   bool
	feed   feed
	looked time.Time
}

// look reads what the triggers ask for, which an install may have changed. The error is the session's end.
func (a *announcement) look(ctx context.Context, conn *pgx.Conn) error {
	if a.registrar == nil {
		return nil
	}
	a.looked = time.Now()
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	var f feed
	err := conn.QueryRow(ctx, `select class, buckets from auditstream.feeds where feed = 'audits'`).Scan(&f.class, &f.buckets)
	if err == nil && (f.buckets < 1 || f.buckets > maxBuckets || f.buckets&(f.buckets-1) != 0) {
		err = fmt.Errorf("auditstream.feeds says %d buckets, which is no power of two up to %d", f.buckets, maxBuckets)
	}
	if _, ok := errors.AsType[*pgconn.PgError](err); err != nil && !ok && conn.IsClosed() {
		return fmt.Errorf("read auditstream.feeds: %w", err)
	}
	if err != nil {
		f = feed{}
	}
	switch {
	case a.told && f == a.feed:
		return nil
	case err != nil:
		a.logger.Warn("it is not known how to tell the triggers what is watched; unless they always ring, the safety net finds changes. Run auditstream doctor", "error", err)
		a.registrar.Session(nil, 0)
	default:
		a.registrar.Session(sessionLocks{class: f.class, do: a.errands.do}, f.buckets)
	}
	a.told, a.feed = true, f
	return nil
}

// end says that the session is over.
func (a *announcement) end() {
	a.errands.end()
	if a.registrar != nil && a.told {
		a.registrar.Session(nil, 0)
	}
}
