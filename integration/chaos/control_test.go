package chaos

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// control is a client of PostgreSQL that connects and reads a row again and again, beside the instances and without a fault of its own. While
// that takes it long, an instance may be late, too: the machine has more to do than it can, as after a restart, when everybody connects again.
type control struct{ slow []window }

// run goes on until ctx is done. slow may be read after it has returned.
func (c *control) run(ctx context.Context, dsn string) {
	for ctx.Err() == nil {
		began := time.Now()
		c.read(ctx, dsn)
		if now := time.Now(); now.Sub(began) > firstAnswer/2 {
			c.slow = append(c.slow, window{cause: "a busy machine", from: began, to: now})
		}
		pause(ctx, firstAnswer/8)
	}
}

// read is what an instance must do for a first answer. How it ends does not matter.
func (c *control) read(ctx context.Context, dsn string) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, _ = conn.Exec(ctx, "select from auditstream.progress limit 1")
}

// busy reports whether a control was slow between two times.
func (c *control) busy(from, to time.Time) bool {
	return slices.ContainsFunc(c.slow, func(w window) bool { return w.overlaps(from, to) })
}
