package auditstreamtest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"auditstream"
	"auditstream/internal/sql"

	"github.com/jackc/pgx/v5"
)

// explainFailure returns the text of a failure: the states that came, guesses why the right one did not, and the log. condition is nil for
// Watch.
func (v *Viewer) explainFailure(ctx context.Context, what string, condition func(auditstream.State) bool) string {
	v.mu.Lock()
	seen, refused := append([]sighting(nil), v.seen...), v.refused
	v.mu.Unlock()
	text := new(strings.Builder)
	fmt.Fprintf(text, "%s %s of user %q: %s within %v", v.key.Feed, v.key.ID, v.user, what, v.server.timeout)
	if refused != "" {
		fmt.Fprintf(text, "; the server said: %s", refused)
	}
	for k, s := range seen {
		if k == 0 {
			fmt.Fprint(text, "\nstates that came:")
		}
		fmt.Fprintf(text, "\n  %8.3fs %s", s.after.Seconds(), s.JSON)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	guesses, err := v.guess(ctx, condition)
	if err != nil {
		guesses = append(guesses, "the database could not be asked why: "+err.Error())
	}
	for _, guess := range guesses {
		fmt.Fprint(text, "\nprobably: ", guess)
	}
	fmt.Fprintf(text, "\nthe server's log:\n%s", v.server.log)
	return text.String()
}

// guess asks the database, through the test's own pool, why the state did not come.
func (v *Viewer) guess(ctx context.Context, condition func(auditstream.State) bool) (guesses []string, err error) {
	conn, err := v.server.database.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	feeds, err := sql.Feeds(ctx, conn)
	if err != nil {
		return nil, err
	}
	for _, f := range feeds {
		if f.Name != v.key.Feed {
			continue
		}
		open, err := openTransactions(ctx, conn.Conn(), f.View)
		if err != nil {
			return nil, err
		}
		row, err := v.guessFromRow(ctx, conn.Conn(), f, condition)
		if err != nil {
			return open, err
		}
		drift, err := sql.Compare(ctx, conn.Conn())
		for _, finding := range drift.Findings {
			guesses = append(guesses, finding.Text+"; "+strings.TrimSpace("install it again "+finding.Remedy))
		}
		return append(append(open, guesses...), row...), err
	}
	return []string{fmt.Sprintf("no table was adopted as feed %s: give New the option Table, or Adopt with this Feed", v.key.Feed)}, nil
}

// openTransactions describes the transactions that have written to a table of the view and have not ended.
func openTransactions(ctx context.Context, conn *pgx.Conn, view string) ([]string, error) {
	rows, err := conn.Query(ctx, `
		select format('a transaction that writes to %s is still open, for %s s (process %s, %s): nothing of it is seen before it commits; its last statement: %s',
			l.relation::regclass, round(extract(epoch from clock_timestamp() - a.xact_start)::numeric, 1), a.pid, a.state, left(a.query, 200))
		from pg_locks l join pg_stat_activity a on a.pid = l.pid
		where l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.granted and a.pid <> pg_backend_pid() and l.database = (select oid from pg_database where datname = current_database())
			and l.relation in (select d.refobjid from pg_depend d join pg_rewrite r on r.oid = d.objid
				where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and r.ev_class = to_regclass($1))`, view)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// guessFromRow reads the row as it is committed now, and guesses from it.
func (v *Viewer) guessFromRow(ctx context.Context, conn *pgx.Conn, f sql.Feed, condition func(auditstream.State) bool) ([]string, error) {
	id := "id"
	if f.Name == "audits" {
		id = "audit_id"
	}
	var owner, email *string
	var now auditstream.State
	err := conn.QueryRow(ctx, "select user_id::text, user_email::text, coalesce(status::text, ''), coalesce(progress, 0), coalesce(message::text, '') from "+
		f.View+" where "+id+"::text = $1", v.key.ID).Scan(&owner, &email, &now.Status, &now.Progress, &now.Message)
	switch {
	case err == pgx.ErrNoRows:
		return []string{fmt.Sprintf("there is no such row: %s has none whose key is %s, or it is not committed yet", f.Name, v.key.ID)}, nil
	case err != nil:
		return nil, err
	}
	now.Ended = now.Status == "completed" || now.Status == "failed"
	whose := "nobody's"
	if owner != nil {
		whose = fmt.Sprintf("of user %q", *owner)
	} else if email != nil {
		whose = fmt.Sprintf("of whoever has the address %q", *email)
	}
	if !f.Public && (owner == nil || *owner != v.user) {
		return []string{fmt.Sprintf("the row has another owner: it is %s, and %q watches; see As", whose, v.user)}, nil
	}
	switch {
	case condition == nil:
		return nil, nil
	case condition(now):
		return []string{"what is waited for is committed now, and was not announced: see the log"}, nil
	}
	return []string{fmt.Sprintf("nothing was committed that is waited for: the row is status %q, progress %d, message %q now", now.Status, now.Progress, now.Message)}, nil
}
