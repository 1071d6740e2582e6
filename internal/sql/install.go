package sql

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Install makes the views and the triggers in one transaction. After an error nothing has changed, unless only the NOTIFY failed that tells
// serve afterwards; the next call repeats it. A second call finds nothing to do, and takes no lock that a writer could notice; it repairs
// what was dropped, disabled or altered meanwhile.
//
// To create triggers, Install needs the table for a moment without writers. While it waits for one, later writers wait behind it, so it
// waits for LockTimeout at most, then lets them pass and tries again. After LockWait it fails and says who holds the lock. Several
// installs at once take turns, in the order in which they come.
//
// conn must not be in a transaction. It may go through a pooler. The errors are those of [PlanInstall].
func Install(ctx context.Context, conn *pgx.Conn, o Options) (*Plan, error) {
	plan, err := run(ctx, conn, o, "install", planInstall)
	if err != nil {
		return nil, err
	}
	if warning := dumpWarning(ctx, conn); warning != "" {
		plan.Warnings = append(plan.Warnings, warning)
	}
	if plan.ownView { // its tables are known only now, from the view that was made
		d, err := Compare(ctx, conn)
		if err != nil {
			return nil, err
		}
		for _, f := range d.Findings {
			if f.Kind == "owner" || f.Kind == "row_security" {
				plan.Warnings = append(plan.Warnings, f.Text)
			}
		}
	}
	return plan, nil
}

type planner = func(context.Context, *pgx.Conn, Options) (*Plan, error)

// run plans and runs the plan, in short attempts until one of them gets its locks.
func run(ctx context.Context, conn *pgx.Conn, o Options, operation string, plan planner) (*Plan, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	turn := o.LockTimeout // a short first attempt, so that a wait is logged soon
	for logged := false; ; {
		p, err := attempt(ctx, conn, o, turn, operation, plan)
		if err == nil {
			return p, nil
		}
		if !isBusy(err) {
			return nil, err
		}
		waited := time.Since(start)
		turn = max(o.LockWait-waited, o.LockTimeout)
		if waited >= o.LockWait {
			return nil, busyError(ctx, conn, operation, p, waited)
		}
		if !logged {
			logged = true
			about := []any{"operation", operation, "table", p.Table, "for_at_most", o.LockWait}
			if who := holders(ctx, conn, p); len(who) > 0 {
				about = append(about, "held_by", strings.Join(who, "; "))
			}
			o.Logger.InfoContext(ctx, "waiting for a lock", about...)
		}
		// With jitter, because other installs, or the application's transactions, may come at a fixed rhythm.
		pause := min(100*time.Millisecond+rand.N(900*time.Millisecond), o.LockWait-waited)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w", operation, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// attempt makes one attempt. It waits for other installs for turn at most; nobody waits behind it meanwhile. With an error it also returns
// the plan, which says what is locked. Planning locks only the view's definition.
func attempt(ctx context.Context, conn *pgx.Conn, o Options, turn time.Duration, operation string, plan planner) (*Plan, error) {
	p, err := planReadOnly(ctx, conn, o, plan)
	switch {
	case err != nil:
		return &Plan{Table: "auditstream.progress"}, err
	case p.SQL == "":
		if operation == "install" && !o.NoTriggers { // after a restore everything is there, but a running serve does not know it yet
			_, err = conn.Exec(ctx, "notify auditstream, '*'")
		}
		return p, err
	case len(p.rights) > 0:
		return p, RightsError(p.rights)
	}
	done, err := runOnce(ctx, conn, o, turn, p, plan)
	if err != nil {
		return p, explain(operation, p, err)
	}
	return done, nil
}

// runOnce runs the beginning of the script, which excludes other installs, then plans again, and runs the rest of the new script.
func runOnce(ctx context.Context, conn *pgx.Conn, o Options, turn time.Duration, p *Plan, plan planner) (*Plan, error) {
	defer rollback(ctx, conn)
	head, _, _ := strings.Cut(p.SQL, searchPath)
	err := execScript(ctx, conn, strings.Replace(head, milliseconds(o.LockWait), milliseconds(turn), 1))
	if err != nil {
		return nil, err
	}
	if p.Table != "" {
		o.Table = p.Table // without the connection's search_path, the name as typed may mean another table
	}
	p, err = plan(ctx, conn, o)
	if err != nil || p.SQL == "" {
		return p, err
	}
	_, body, _ := strings.Cut(p.SQL, searchPath)
	return p, execScript(ctx, conn, searchPath+body)
}

// execScript runs several statements with the simple protocol.
func execScript(ctx context.Context, conn *pgx.Conn, script string) error {
	_, err := conn.PgConn().Exec(ctx, script).ReadAll()
	return err
}

// isBusy reports whether a lock of another session is the cause of err.
func isBusy(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && (refused.Code == "55P03" || refused.Code == "40P01") // lock_not_available, deadlock_detected
}
