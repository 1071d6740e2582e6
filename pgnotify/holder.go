package pgnotify

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// Holder is the Source of a session that holds the locks by which writers see what is watched, of an instance that hears elsewhere
// of changes. It does not LISTEN, so that it costs writers nothing; the canary is a question to it.
type Holder struct {
	*Postgres
	conn atomic.Pointer[pgConn]
}

// NewHolder returns a Holder. The parameters are NewPostgres's.
func NewHolder(conn *pgx.ConnConfig, pool Execer, registrar *Registrar, logger *slog.Logger) *Holder {
	p := NewPostgres(conn, pool, registrar, logger)
	p.conn = listenConfig(conn, "auditstream instance")
	return &Holder{Postgres: p}
}

// Texts implements [Source].
func (*Holder) Texts() Texts {
	const cannot = "cannot tell the triggers what is watched, trying on; unless they always ring, the safety net finds changes. DATABASE_LISTEN_URL must be a direct connection to the primary"
	return Texts{Up: "telling the triggers what is watched", Lost: cannot, Mute: cannot}
}

// Open implements [Source].
func (h *Holder) Open(ctx context.Context) (Conn, error) {
	c, err := h.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := h.prove(ctx, c.conn); err != nil {
		c.Close()
		return nil, err
	}
	h.conn.Store(c)
	return c, nil
}

// prove has one notification from the pool come back: through a transaction pooler none does.
func (h *Holder) prove(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	channel := pgx.Identifier{"auditstream_instance_" + strings.ToLower(rand.Text())}
	if _, err := conn.Exec(ctx, "listen "+channel.Sanitize()); err != nil {
		return fmt.Errorf("listen once: %w", err)
	}
	if _, err := h.pool.Exec(ctx, "select pg_catalog.pg_notify($1, '')", channel[0]); err != nil {
		return fmt.Errorf("notify once: %w", err)
	}
	waitCtx, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	if _, err := conn.WaitForNotification(waitCtx); err != nil {
		if waitCtx.Err() != nil && ctx.Err() == nil {
			err = ErrSilent
		}
		return fmt.Errorf("wait for a notification: %w", err)
	}
	if _, err := conn.Exec(ctx, "unlisten "+channel.Sanitize()); err != nil {
		return fmt.Errorf("unlisten: %w", err)
	}
	return nil
}

// Send implements [Source].
func (h *Holder) Send(ctx context.Context, payload string) error {
	c := h.conn.Load()
	return c.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		c.echo = payload
		return conn.Ping(ctx)
	})
}
