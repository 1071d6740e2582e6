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

// Install makes the views and the triggers, all in one transaction: after an error nothing has changed, unless it is one of the NOTIFY
// that follows and tells serve, which the next call repeats. A second call reads the catalog, finds nothing to do and takes no lock that a
// writer could notice; what was dropped, disabled or altered meanwhile is repaired.
//
// To create triggers, the table must for a moment have no writer. Install never queues behind one for longer than LockTimeout, because
// the application's writers queue behind Install; it lets go and tries again, for LockWait in all, and then says who held the lock.
// Installers in several processes take turns, in the order in which they come.
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
	if plan.own { // whose tables were not looked at before
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

// run plans, and runs the plan, in short attempts until one of them gets its locks.
func run(ctx context.Context, conn *pgx.Conn, o Options, operation string, plan planner) (*Plan, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	turn := o.LockTimeout // the first time, so that a wait is soon told
	for told := false; ; {
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
		if !told {
			told = true
			o.Logger.InfoContext(ctx, "waiting for a lock", "operation", operation, "table", p.Table, "for_at_most", o.LockWait,
				"held_by", strings.Join(holders(ctx, conn, p), "; "))
		}
		// Jitter: several installers, or the application's own transactions, may come at a fixed rhythm.
		pause := min(100*time.Millisecond+rand.N(900*time.Millisecond), o.LockWait-waited)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w", operation, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// attempt waits turn at most for other installs, which nobody waits behind. It returns a plan with an error as well: it says what is
// busy. To plan, only the view's definition is locked.
func attempt(ctx context.Context, conn *pgx.Conn, o Options, turn time.Duration, operation string, plan planner) (*Plan, error) {
	p, err := planApart(ctx, conn, o, plan)
	switch {
	case err != nil:
		return &Plan{Table: "auditstream.progress"}, err
	case p.SQL == "":
		if operation == "install" && !o.NoTriggers { // after a restore all is there, and a serve that runs has not been told
			_, err = conn.Exec(ctx, "notify auditstream, '*'")
		}
		return p, err
	case len(p.rights) > 0:
		return p, RightsError(p.rights)
	}
	done, err := runOnce(ctx, conn, o, turn, p, plan)
	if err != nil {
		return p, explain(operation, err)
	}
	return done, nil
}

// runOnce begins the script, plans again now that no other install can come between, and runs the rest.
func runOnce(ctx context.Context, conn *pgx.Conn, o Options, turn time.Duration, p *Plan, plan planner) (*Plan, error) {
	defer abandon(ctx, conn)
	head, _, _ := strings.Cut(p.SQL, searchPath)
	err := execScript(ctx, conn, strings.Replace(head, milliseconds(o.LockWait), milliseconds(turn), 1))
	if err != nil {
		return nil, err
	}
	if p.Table != "" {
		o.Table = p.Table // the name as typed may mean something else without the connection's search_path
	}
	p, err = plan(ctx, conn, o)
	if err != nil || p.SQL == "" {
		return p, err
	}
	_, body, _ := strings.Cut(p.SQL, searchPath)
	return p, execScript(ctx, conn, searchPath+body)
}

// execScript runs several statements as they stand, which is what the simple protocol is for.
func execScript(ctx context.Context, conn *pgx.Conn, script string) error {
	_, err := conn.PgConn().Exec(ctx, script).ReadAll()
	return err
}

// isBusy says whether another session was in the way.
func isBusy(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && (refused.Code == "55P03" || refused.Code == "40P01") // lock_not_available, deadlock_detected
}
