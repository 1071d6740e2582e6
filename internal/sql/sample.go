package sql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// sampleRows is how many rows are read at most to see what is in a table. largeTable is from how many rows on a missing index is a warning.
const sampleRows, largeTable = 100_000, 10_000

// Seen is what install or doctor sees in the rows of a feed, in sentences for operators.
type Seen struct {
	Notes    []string
	Warnings []SeenWarning
}

// A SeenWarning says what is wrong and what to do, which doctor prints; for install the text is enough.
type SeenWarning struct{ Text, Remedy string }

func (s *Seen) warn(remedy, format string, args ...any) {
	s.Warnings = append(s.Warnings, SeenWarning{fmt.Sprintf(format, args...), remedy})
}

// See says which statuses the rows of an installed feed have, what each does, how many rows have no owner, and how many ids have several
// rows. It reads at most 100,000 rows
// of the feed's view, with the rights that serve has. conn must not be in a transaction.
func See(ctx context.Context, conn *pgx.Conn, f Feed) (Seen, error) {
	return inReadTransaction(ctx, conn, 0, func() (s Seen, err error) {
		owner := []string{"coalesce(a.user_id, '') collate \"C\" !~ '[^[:space:]]'", "coalesce(a.user_email, '') collate \"C\" !~ '[^[:space:]]'"}
		if f.Groups {
			owner = append(owner, "coalesce(a.group_id, '') collate \"C\" !~ '[^[:space:]]'")
		}
		rows := fmt.Sprintf("(select * from %s limit %d) a", f.View, sampleRows)
		err = s.statuses(ctx, conn, statusRows("a.status", "null", "count(*)::int", rows), f.Ends, nil)
		if err == nil && !f.Public {
			err = s.ownerless(ctx, conn, owner, rows)
		}
		if err == nil {
			err = s.repeated(ctx, conn, naming(f.Name).id(), rows)
		}
		return s, err
	})
}

// inspectTable says from where each shown value comes, and what has none. With rows it reads the table, too: how many rows have no owner,
// and whether an index of a large table finds an owner's rows. It says which statuses the table has or can have, and what each does.
func inspectTable(ctx context.Context, conn *pgx.Conn, t *table, m *mapping, o Options, rows bool) (s Seen, err error) {
	s.Notes = m.describe(t, o)
	if rest := m.unusedColumns(); len(rest) > 0 {
		s.warn("", "%s selects %s, which nobody sees: give --field for each that is to be shown", viewName, some(rest))
	}
	if m.own != nil {
		s.Notes = append(s.Notes, fmt.Sprintf("statuses: not read, since install never runs %s; auditstream doctor lists them", viewName))
	}
	if t.OID == 0 || m.own != nil { // the table does not exist yet
		return s, nil
	}
	var columns []string
	for _, a := range m.sources() { // the current role may read these
		if name := ident(a.Name); !slices.Contains(columns, name) {
			columns = append(columns, name)
		}
	}
	from := fmt.Sprintf("(select %s from %s a limit %d) a", strings.Join(columns, ", "), t.quoted(), sampleRows)
	if err = s.words(ctx, conn, t, m, o, from, rows); err != nil || o.Public || !rows {
		return s, err
	}
	var nobody []string
	for _, c := range m.columns {
		if c.source == nil || c.name != "user_id" && c.name != "user_email" && c.name != "group_id" {
			continue
		}
		if c.source.lookedUp != nil { // it is in another table, which is not read here
			return s, nil
		}
		nobody = append(nobody, fmt.Sprintf(`coalesce(%s, '') collate "C" !~ '[^[:space:]]'`, c.shown))
	}
	if len(nobody) > 0 {
		err = s.ownerless(ctx, conn, nobody, from)
	}
	if err == nil {
		err = s.unindexed(ctx, conn, t, m)
	}
	return s, err
}

// describe says from where each shown value comes, and what the table has no column for.
func (m *mapping) describe(t *table, o Options) []string {
	var from, missing, others []string
	for _, c := range m.columns {
		switch given, ok := o.Columns[c.name]; {
		case c.source != nil && c.source.String() != c.name:
			from = append(from, c.name+" from "+c.source.String())
		case c.source != nil:
			from = append(from, c.name)
		case ok && given == "", c.shown != "", c.name == "user_id", c.name == "user_email": // left out, made of others, or shown to nobody
		case o.feed() == defaultFeed || c.name != "geo_score" && c.name != "total_pages":
			missing = append(missing, c.name)
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
	notes := []string{fmt.Sprintf("shown: id from %s, %s", m.shownKey.Name, strings.Join(from, ", "))}
	if len(missing) == 0 {
		return notes
	}
	if m.own != nil {
		return append(notes, fmt.Sprintf("not shown: %s, which %s does not select", strings.Join(missing, ", "), viewName))
	}
	for _, name := range missing {
		if likely := t.likely(name); len(likely) > 0 {
			others = append(others, "--column "+name+"="+ShellQuote(likely[0]))
		}
	}
	if len(others) == 0 {
		others = []string{"--column " + missing[0] + "=NAME"}
	}
	return append(notes, fmt.Sprintf("not shown, as there is no such column: %s; where another column holds it, give %s", strings.Join(missing, ", "), strings.Join(others, " ")))
}

// ownerless adds how many of rows have no owner: those for which all conditions of nobody are true.
func (s *Seen) ownerless(ctx context.Context, conn *pgx.Conn, nobody []string, rows string) error {
	var all, without int
	err := conn.QueryRow(ctx, fmt.Sprintf(`select count(*)::int, count(*) filter (where %s)::int from %s`, strings.Join(nobody, " and "), rows)).Scan(&all, &without)
	if err != nil {
		return fmt.Errorf("read the owners: %w", err)
	}
	if without > 0 {
		s.warn("Write the owner into these rows, or run auditstream install again for this feed, with --column user_id= and the column that has it, or with --public.",
			"%d of %d rows have no owner, so that nobody sees them", without, all)
	}
	return nil
}

// repeated adds how many ids have several of the rows, as those of a query that joins owners may.
func (s *Seen) repeated(ctx context.Context, conn *pgx.Conn, id, rows string) error {
	var ids int
	err := conn.QueryRow(ctx, fmt.Sprintf(`select count(*)::int from (select from %[1]s where a.%[2]s is not null group by a.%[2]s having count(*) > 1) x`, rows, id)).Scan(&ids)
	if err != nil {
		return fmt.Errorf("read the ids: %w", err)
	}
	if ids > 0 {
		s.warn("Show each id in one row. Where many may see it, give it a group_id, and start serve with JWT_GROUPS_CLAIM.",
			"ids with several rows: %d; viewers see any one of them, with its owner", ids)
	}
	return nil
}

// unindexed adds the kinds of owners whose rows no index of a large table finds. It skips user_email, which would need an index on an
// expression.
func (s *Seen) unindexed(ctx context.Context, conn *pgx.Conn, t *table, m *mapping) error {
	if t.Rows < largeTable {
		return nil
	}
	for _, c := range m.columns {
		if c.source == nil || c.name != "user_id" && c.name != "group_id" {
			continue
		}
		scanned, err := tableScanned(ctx, conn, fmt.Sprintf("select from %s a where (%s) = 'x'", t.quoted(), c.shown))
		if err != nil {
			return fmt.Errorf("explain a read of %s: %w", t.Display, err)
		}
		if scanned.Table != "" {
			s.warn("", "no index finds the rows of one %s: each stream of all rows of one owner reads the whole of %s; create index concurrently on %s ((%s))",
				c.name, t.Display, t.quoted(), strings.ReplaceAll(c.shown, `a."`, `"`))
		}
	}
	return nil
}

// String returns the source as it is written for --column.
func (s *source) String() string {
	text := s.column.Name
	for _, name := range s.path {
		if strings.ContainsAny(name, `."`) {
			name = ident(name)
		}
		text += "." + name
	}
	if s.remainder {
		text = "100-" + text
	}
	switch {
	case s.divisor != nil:
		return text + "/" + s.divisor.String()
	case s.multiplier != "":
		return text + "*" + s.multiplier
	case s.lookedUp != nil:
		return text + " by --lookup"
	}
	return text
}
