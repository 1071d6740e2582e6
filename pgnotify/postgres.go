package pgnotify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Channel is the PostgreSQL channel that the triggers notify.
const Channel = "auditstream"

const (
	connectTimeout = 5 * time.Second
	goodbyeTimeout = time.Second
)

// Execer sends the canary. A pgxpool.Pool is one.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Postgres is the Source of PostgreSQL's NOTIFY. The session that listens is also the one that holds the locks by which writers see
// what is watched.
type Postgres struct {
	conn      *pgx.ConnConfig
	pool      Execer
	registrar *Registrar
	logger    *slog.Logger
}

// NewPostgres returns a Source. conn, made by pgx.ParseConfig, is a direct or session-pooled connection to the primary; pool is the
// way by which the application's database is otherwise reached. registrar is given each session that is proven; nil: nothing is
// watched here, as for a relay.
func NewPostgres(conn *pgx.ConnConfig, pool Execer, registrar *Registrar, logger *slog.Logger) *Postgres {
	return &Postgres{conn: listenConfig(conn, "auditstream listener"), pool: pool, registrar: registrar, logger: logger}
}

// Texts implements [Source].
func (*Postgres) Texts() Texts {
	return Texts{
		Up:   "listening for notifications",
		Lost: "listening connection lost, reconnecting; the safety net finds changes meanwhile",
		Mute: "LISTEN does not work on this connection: polling only. Set DATABASE_LISTEN_URL to a direct connection to the primary (a transaction pooler or a standby cannot LISTEN)",
	}
}

// Send implements [Source].
func (p *Postgres) Send(ctx context.Context, payload string) error {
	_, err := p.pool.Exec(ctx, "select pg_catalog.pg_notify($1, $2)", Channel, payload)
	return err
}

// Open implements [Source].
func (p *Postgres) Open(ctx context.Context) (Conn, error) {
	c, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.conn.ConnectTimeout)
	defer cancel()
	if _, err := c.conn.Exec(ctx, "listen "+pgx.Identifier{Channel}.Sanitize()); err != nil {
		c.Close()
		// On a standby: "cannot execute LISTEN during recovery" is read_only_sql_transaction.
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && slices.Contains([]string{"25006", "0A000"}, pgErr.Code) {
			err = errors.Join(ErrCannot, err)
		}
		return nil, fmt.Errorf("listen: %w", err)
	}
	return c, nil
}

// connect opens a connection that idle_session_timeout, which counts a session that only listens as idle, does not end.
func (p *Postgres) connect(ctx context.Context) (*pgConn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.conn.ConnectTimeout*time.Duration(2+len(p.conn.Fallbacks)))
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, p.conn)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	c := &pgConn{conn: conn, registrar: p.registrar, logger: p.logger}
	// A pooler would keep a SET for its next client, so set nothing unless it is needed.
	const keepIdle = `select set_config('idle_session_timeout', '0', false) where current_setting('idle_session_timeout', true) <> '0'`
	if _, err := conn.Exec(ctx, keepIdle); err != nil {
		c.Close()
		return nil, fmt.Errorf("prepare connection: %w", err)
	}
	return c, nil
}

// listenConfig makes a dead peer noticed without a query: the canary is faster, but the kernel also frees what a network
// partition leaves behind.
func listenConfig(from *pgx.ConnConfig, name string) *pgx.ConnConfig {
	cfg := from.Copy()
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = name
	}
	if cfg.ConnectTimeout == 0 || cfg.ConnectTimeout > connectTimeout {
		cfg.ConnectTimeout = connectTimeout
	}
	cfg.DialFunc = (&net.Dialer{
		Timeout:         cfg.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
	}).DialContext
	return cfg
}

// pgConn is a Conn of PostgreSQL's.
type pgConn struct {
	errands
	conn      *pgx.Conn
	registrar *Registrar
	logger    *slog.Logger
	told      bool // the registrar, of this session and
	feed      feed
	echo      string // what Receive returns next, of a Holder
}

// feed is what the triggers' conditions ask for, as auditstream.feeds says; zero: there are none that ask.
type feed struct{ class, buckets int32 }

// Receive implements [Conn].
func (c *pgConn) Receive(ctx context.Context) (payload string, err error) {
	for {
		n, err := c.wait(ctx, c.conn)
		switch {
		case err != nil:
			return "", err
		case n != nil:
			return n.Payload, nil
		case c.echo != "":
			payload, c.echo = c.echo, ""
			return payload, nil
		}
	}
}

// Proven implements [Conn]: it reads what the triggers ask for, which an install may have changed, and gives the registrar the
// session. Not before: through a transaction pooler locks would stay with whoever gets the connection next.
func (c *pgConn) Proven(ctx context.Context) error {
	if c.registrar == nil {
		return nil
	}
	var f feed
	var failure error
	err := c.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		failure = conn.QueryRow(ctx, `select class, buckets from auditstream.feeds where feed = 'audits'`).Scan(&f.class, &f.buckets)
		if conn.IsClosed() {
			return fmt.Errorf("read auditstream.feeds: %w", failure)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case failure == nil && (f.buckets < 1 || f.buckets > maxBuckets || f.buckets&(f.buckets-1) != 0):
		failure = fmt.Errorf("auditstream.feeds says %d buckets, which is no power of two up to %d", f.buckets, maxBuckets)
	}
	if failure != nil {
		f = feed{}
	}
	switch {
	case c.told && f == c.feed:
		return nil
	case c.feed != (feed{}): // those that are held mean nothing now, also one that is being taken: they end with the session
		return errors.New("the triggers ask for other locks than before")
	case failure != nil:
		c.logger.Warn("the triggers cannot be told what is watched; unless they always ring, the safety net finds changes. Run auditstream doctor", "error", failure)
		c.registrar.Session(nil, 0)
	default:
		c.registrar.Session(sessionLocks{class: f.class, do: c.do}, f.buckets)
	}
	c.told, c.feed = true, f
	return nil
}

// Close implements [Conn]. The locks go with the connection.
func (c *pgConn) Close() {
	c.end()
	if c.told {
		c.registrar.Session(nil, 0)
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	_ = c.conn.Close(ctx)
}
