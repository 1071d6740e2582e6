package pgnotify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"auditstream/internal/nonblock"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgxlisten"
)

// Channel is the PostgreSQL channel that the triggers notify.
const Channel = "auditstream"

// connectTimeout is the longest time for one attempt to connect; a shorter connect_timeout of the connection string stays.
const connectTimeout = 5 * time.Second

// Pool is the part of a pgxpool.Pool that this package needs: to send notifications, and to ask which server the pool reaches.
type Pool interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Postgres is the Source that LISTENs on PostgreSQL. Safe for concurrent use.
type Postgres struct {
	conn *pgx.ConnConfig
	pool Pool
}

// NewPostgres returns a Source. conn is for LISTEN: a direct or session-pooled connection to the primary, made by pgx.ParseConfig. pool
// sends the notifications, and may go through a transaction pooler.
func NewPostgres(conn *pgx.ConnConfig, pool Pool) *Postgres {
	return &Postgres{conn: listenConfig(conn, "auditstream listener"), pool: pool}
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
	return notify(ctx, p.pool, Channel, payload)
}

func notify(ctx context.Context, pool Pool, channel, payload string) error {
	_, err := pool.Exec(ctx, "select pg_catalog.pg_notify($1, $2)", channel, payload)
	return err
}

// Listen implements [Source].
func (p *Postgres) Listen(ctx context.Context, opened func(), heard func(payload string)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := openTimeout(p.conn)
	late := time.AfterFunc(timeout, func() { cancel(fmt.Errorf("connect and LISTEN: not done within %v", timeout)) })
	defer late.Stop()
	l := &pgxlisten.Listener{
		Connect:        func(ctx context.Context) (*pgx.Conn, error) { return connectIdle(ctx, p.conn) },
		LogError:       func(_ context.Context, err error) { cancel(err) }, // the first cause wins
		ReconnectDelay: time.Hour,                                          // never reached: LogError has ended ctx by then
	}
	l.Handle(Channel, handler{func() { late.Stop(); opened() }, heard})
	_ = l.Listen(ctx) // it always returns ctx's error; the cause says more
	err := context.Cause(ctx)
	// A standby refuses with read_only_sql_transaction, "cannot execute LISTEN during recovery".
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && slices.Contains([]string{"25006", "0A000"}, pgErr.Code) {
		return errors.Join(ErrCannot, err)
	}
	return err
}

// handler implements pgxlisten's interfaces with two functions.
type handler struct {
	opened func()
	heard  func(payload string)
}

// HandleBacklog is called once, when LISTEN has succeeded.
func (h handler) HandleBacklog(context.Context, string, *pgx.Conn) error {
	h.opened()
	return nil
}

func (h handler) HandleNotification(_ context.Context, n *pgconn.Notification, _ *pgx.Conn) error {
	h.heard(n.Payload)
	return nil
}

// openTimeout bounds connecting to each host of the connection string and one more statement.
func openTimeout(conn *pgx.ConnConfig) time.Duration {
	return conn.ConnectTimeout * time.Duration(2+len(conn.Fallbacks))
}

// connectIdle opens a connection that idle_session_timeout does not end: PostgreSQL counts a session that only listens as idle.
func connectIdle(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	// Through a pooler, a SET stays for the next client, so set nothing unless it is needed.
	const keepIdle = `select set_config('idle_session_timeout', '0', false) where current_setting('idle_session_timeout', true) <> '0'`
	if _, err := conn.Exec(ctx, keepIdle); err != nil {
		_ = conn.Close(ctx) // the first error is the one to report
		return nil, fmt.Errorf("turn off idle_session_timeout: %w", err)
	}
	return conn, nil
}

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// listenConfig returns a copy of from with an application_name, a bounded connect time and TCP keepalive. The canary notices a dead peer
// sooner, but keepalive also frees the sockets that a network partition leaves behind. from's DialFunc stays in use: it may be a cloud's
// connector, or a proxy.
func listenConfig(from *pgx.ConnConfig, name string) *pgx.ConnConfig {
	cfg := from.Copy()
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = name
	}
	if cfg.ConnectTimeout == 0 || cfg.ConnectTimeout > connectTimeout {
		cfg.ConnectTimeout = connectTimeout
	}
	dial := from.DialFunc
	cfg.DialFunc = nonblock.Dial(func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
			_ = tcp.SetKeepAliveConfig(keepAlive) // an error means that it is closed; its first use finds that, too
		}
		return conn, err
	})
	return cfg
}
