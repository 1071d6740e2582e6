package sql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// sampled is how many rows are looked at to say what there is, and large how many a table has at least of which an index is missed.
const sampled, large = 100_000, 10_000

// looksLikeAnEnd are words that end a row where nobody has said what they do.
var looksLikeAnEnd = []string{"done", "finished", "complete", "success", "succeeded", "successful", "ok", "cancelled", "canceled", "aborted", "error", "errored", "failure", "dead", "discarded",
	"expired", "skipped", "stopped", "terminated", "timeout", "timed_out", "revoked", "rejected", "resolved", "closed", "ended", "archived"}

// What is Seen of a feed, in sentences for operators.
type Seen struct{ Notes, Warnings []string }

// See says of a feed that is installed which statuses its rows have, what each does, and how many rows have no owner. It reads the feed's view,
// as serve does, and at most 100,000 rows. conn must not be in a transaction.
func See(ctx context.Context, conn *pgx.Conn, f Feed) (Seen, error) {
	return reading(ctx, conn, 0, func() (s Seen, err error) {
		owner := []string{"coalesce(a.user_id, '') collate \"C\" !~ '[^[:space:]]'", "coalesce(a.user_email, '') collate \"C\" !~ '[^[:space:]]'"}
		if f.Groups {
			owner = append(owner, "coalesce(a.group_id, '') collate \"C\" !~ '[^[:space:]]'")
		}
		rows := fmt.Sprintf("(select * from %s limit %d) a", f.View, sampled)
		err = s.statuses(ctx, conn, "a.status", rows, f.Ends)
		if err == nil && !f.Public {
			err = s.ownerless(ctx, conn, owner, rows)
		}
		return s, err
	})
}

// seen says where what is shown comes from, which words the table has and what each does, how many rows have no owner, and of a large table
// whether an index finds an owner's.
func seen(ctx context.Context, conn *pgx.Conn, t *table, m *mapping, o Options) (s Seen, err error) {
	var from []string
	for _, c := range m.columns {
		if c.source != nil && c.source.String() != c.name {
			from = append(from, c.name+" from "+c.source.String())
		} else if c.source != nil {
			from = append(from, c.name)
		}
	}
	var of []string
	for _, r := range m.rules {
		if text := r.source.String(); !slices.Contains(of, text) {
			of = append(of, text)
		}
	}
	if len(of) > 0 {
		from = append(from, "words of "+strings.Join(of, ", of "))
	}
	for _, f := range m.fields {
		from = append(from, f.name+" from "+f.source.String())
	}
	s.Notes = append(s.Notes, fmt.Sprintf("shown: id from %s, %s", m.shown.Name, strings.Join(from, ", ")))
	if rest := m.notShown(); len(rest) > 0 {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s selects %s, which nobody sees: give --field for each that is to be shown", viewName, strings.Join(rest, ", ")))
	}
	if t.OID == 0 || m.own != nil { // which is not run here
		return s, nil
	}
	var columns []string
	for _, a := range m.sources() { // which whoever installs may read
		if name := ident(a.Name); !slices.Contains(columns, name) {
			columns = append(columns, name)
		}
	}
	rows := fmt.Sprintf("(select %s from %s a limit %d) a", strings.Join(columns, ", "), t.quoted(), sampled)
	err = s.statuses(ctx, conn, m.columns[slices.Index(ours, "status")].shown, rows, o.Ends)
	if err != nil || o.Public {
		return s, err
	}
	var nobody []string
	for _, c := range m.columns {
		if c.source == nil || c.name != "user_id" && c.name != "user_email" && c.name != "group_id" {
			continue
		}
		if c.source.elsewhere != nil { // in a table that is not read here
			return s, nil
		}
		nobody = append(nobody, fmt.Sprintf(`coalesce(%s, '') collate "C" !~ '[^[:space:]]'`, c.shown))
	}
	if len(nobody) > 0 {
		err = s.ownerless(ctx, conn, nobody, rows)
	}
	if err == nil {
		err = s.unindexed(ctx, conn, t, m)
	}
	return s, err
}

// statuses adds which there are among some rows, the commonest twenty, and what each does.
func (s *Seen) statuses(ctx context.Context, conn *pgx.Conn, status, rows string, ends []string) error {
	type word struct {
		Word string
		Rows int
	}
	words, err := collect(ctx, conn, "the statuses", pgx.RowToStructByPos[word], fmt.Sprintf(`
		select left(coalesce(%s, ''), 100), count(*)::int from %s group by 1 order by 2 desc, 1 limit 20`, status, rows))
	if err != nil {
		return err
	}
	var listed []string
	for _, w := range words {
		does := "ends nothing"
		if w.Word == "completed" || w.Word == "failed" || slices.Contains(ends, w.Word) {
			does = "ends a row"
		} else if slices.Contains(looksLikeAnEnd, w.Word) {
			s.Warnings = append(s.Warnings, fmt.Sprintf("the status %q sounds final and ends no stream, in %d rows: their streams stay open; give --status %[1]s=completed, or =failed, or --ends %[1]s", w.Word, w.Rows))
		}
		listed = append(listed, fmt.Sprintf("%q (%d, %s)", w.Word, w.Rows, does))
	}
	if len(listed) > 0 {
		s.Notes = append(s.Notes, "statuses: "+strings.Join(listed, ", "))
	}
	return nil
}

// ownerless adds how many of some rows nobody sees. nobody are conditions that all hold of those.
func (s *Seen) ownerless(ctx context.Context, conn *pgx.Conn, nobody []string, rows string) error {
	var all, without int
	err := conn.QueryRow(ctx, fmt.Sprintf(`select count(*)::int, count(*) filter (where %s)::int from %s`, strings.Join(nobody, " and "), rows)).Scan(&all, &without)
	if err != nil {
		return fmt.Errorf("read the owners: %w", err)
	}
	if without > 0 {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%d of %d rows have no owner, so that nobody sees them", without, all))
	}
	return nil
}

// unindexed adds for which owners of a large table no index is there. What finds users by their address would take an expression of its own.
func (s *Seen) unindexed(ctx context.Context, conn *pgx.Conn, t *table, m *mapping) error {
	if t.Rows < large {
		return nil
	}
	for _, c := range m.columns {
		if c.source == nil || c.name != "user_id" && c.name != "group_id" {
			continue
		}
		scanned, err := scanned(ctx, conn, fmt.Sprintf("select from %s a where (%s) = 'x'", t.quoted(), c.shown))
		if err != nil {
			return fmt.Errorf("explain a read of %s: %w", t.Display, err)
		}
		if scanned != "" {
			s.Warnings = append(s.Warnings, fmt.Sprintf("no index finds the rows of one %s: whoever watches all that is theirs has the whole of %s read; create index concurrently on %s ((%s))",
				c.name, t.Display, t.quoted(), strings.ReplaceAll(c.shown, `a."`, `"`)))
		}
	}
	return nil
}

// Scanned is the table that serve reads as a whole to find one row of a feed; "": none. It takes the right to read the view.
func Scanned(ctx context.Context, conn *pgx.Conn, f Feed) (string, error) {
	value := map[string]string{"": "1", "uuid": "'00000000-0000-0000-0000-000000000000'::pg_catalog.uuid", "text": "'x'::pg_catalog.text"}[f.Key]
	return reading(ctx, conn, 0, func() (string, error) {
		return scanned(ctx, conn, fmt.Sprintf("select * from %s a where a.%s = %s", f.View, naming(f.Name).id(), value))
	})
}

// String is the source as it is written for --column.
func (s *source) String() string {
	text := strings.Join(append([]string{s.column.Name}, s.path...), ".")
	if s.left {
		text = "100-" + text
	}
	switch {
	case s.over != nil:
		return text + "/" + s.over.String()
	case s.times != "":
		return text + "*" + s.times
	case s.elsewhere != nil:
		return text + " by --lookup"
	}
	return text
}
