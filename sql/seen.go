package sql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// sampled is how many rows install looks at to say what it sees.
const sampled = 100_000

// looksLikeAnEnd are words that end a row where nobody has said what they do.
var looksLikeAnEnd = []string{"done", "finished", "complete", "success", "succeeded", "successful", "ok", "cancelled", "canceled", "aborted", "error", "errored", "failure", "dead", "discarded",
	"expired", "skipped", "stopped", "terminated", "timeout", "timed_out", "revoked", "rejected", "resolved", "closed", "ended", "archived"}

// A word of a table's status, as it is shown, and how many rows of those that were looked at have it.
type wordSeen struct {
	Word string
	Rows int
}

// seen says where what is shown comes from, which words the table has and what each does, and how many rows have no owner.
func seen(ctx context.Context, conn *pgx.Conn, t *table, m *mapping, o Options) (notes, warnings []string, err error) {
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
	notes = append(notes, fmt.Sprintf("shown: id from %s, %s", m.key.Name, strings.Join(from, ", ")))
	if t.OID == 0 {
		return notes, nil, nil
	}
	var columns []string
	for _, a := range m.sources() { // which whoever installs may read
		if name := ident(a.Name); !slices.Contains(columns, name) {
			columns = append(columns, name)
		}
	}
	rows := fmt.Sprintf("(select %s from %s limit %d) a", strings.Join(columns, ", "), t.quoted(), sampled)
	status := m.columns[slices.Index(ours, "status")].shown
	words, err := collect(ctx, conn, t.Display, pgx.RowToStructByPos[wordSeen], fmt.Sprintf(`
		select left(coalesce(%s, ''), 100), count(*)::int from %s group by 1 order by 2 desc, 1 limit 20`, status, rows))
	if err != nil {
		return nil, nil, err
	}
	var listed []string
	for _, w := range words {
		does := "ends nothing"
		if w.Word == "completed" || w.Word == "failed" || slices.Contains(o.Ends, w.Word) {
			does = "ends a row"
		} else if slices.Contains(looksLikeAnEnd, w.Word) {
			warnings = append(warnings, fmt.Sprintf("the status %q looks like an end, and ends nothing, in %d rows: streams of them stay open; give --status %[1]s=completed, or =failed, or --ends %[1]s", w.Word, w.Rows))
		}
		listed = append(listed, fmt.Sprintf("%q (%d, %s)", w.Word, w.Rows, does))
	}
	if len(listed) > 0 {
		notes = append(notes, "statuses: "+strings.Join(listed, ", "))
	}
	var nobody []string
	for _, c := range m.columns {
		if c.shown != "" && (c.name == "user_id" || c.name == "user_email" || c.name == "group_id") && !slices.ContainsFunc(m.lookups, func(l lookup) bool { return c.source != nil && c.source.elsewhere != nil }) {
			nobody = append(nobody, fmt.Sprintf(`coalesce(%s, '') collate "C" !~ '[^[:space:]]'`, c.shown))
		}
	}
	if len(nobody) == 0 || o.Public {
		return notes, warnings, nil
	}
	var all, without int
	err = conn.QueryRow(ctx, fmt.Sprintf(`select count(*)::int, count(*) filter (where %s)::int from %s`, strings.Join(nobody, " and "), rows)).Scan(&all, &without)
	if err == nil && without > 0 {
		warnings = append(warnings, fmt.Sprintf("%d of %d rows have no owner, so that nobody sees them", without, all))
	}
	return notes, warnings, err
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
