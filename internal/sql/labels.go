package sql

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// looksLikeAnEnd are statuses that probably mean an end. A warning names those that end no row.
var looksLikeAnEnd = []string{"done", "finished", "complete", "success", "succeeded", "successful", "ok", "cancelled", "canceled", "aborted", "error", "errored", "failure", "dead", "discarded",
	"expired", "skipped", "stopped", "terminated", "timeout", "timed_out", "revoked", "rejected", "resolved", "closed", "ended", "archived"}

// looksLikeNoEnd are statuses that probably mean no end. Of any other status that ends no row a note says so.
var looksLikeNoEnd = []string{"pending", "queued", "waiting", "scheduled", "created", "new", "ready", "available", "running", "processing", "in_progress", "active", "started", "working",
	"executing", "retrying", "retryable", "paused"}

// maxStatuses is how many statuses are listed, and maxUnknown how many of those that nobody has said anything about.
const maxStatuses, maxUnknown = 20, 5

// words adds the statuses of a table's rows, if they may be read, and those that its status can have, from the catalog.
func (s *Seen) words(ctx context.Context, conn *pgx.Conn, t *table, m *mapping, o Options, from string, rows bool) error {
	c := m.columns[slices.Index(viewColumns, "status")]
	labels, err := statusLabels(ctx, conn, t, c.source)
	if err != nil {
		return err
	}
	var queries []string
	if rows {
		asStored := "null"
		if text := c.source.words(m.encoding); text != "" && len(m.rules) == 0 {
			asStored = stored(text)
		}
		queries = append(queries, statusRows(c.shown, asStored, "count(*)::int", from))
	}
	var args []any
	if len(labels) > 0 {
		label := &source{column: &attribute{Name: "label", Base: "text", BaseSQL: "text", Category: "S", BuiltIn: true}}
		shown, err := ownStatus(label, o.Words, m.encoding)
		if err != nil {
			return err
		}
		queries = append(queries, statusRows(shown, stored(label.ref()), "0", "pg_catalog.unnest($2::text[]) a(label)"))
		args = append(args, labels)
	}
	if len(queries) == 0 {
		return nil
	}
	var chosen []string
	for _, w := range o.Words {
		chosen = append(chosen, w.Shown)
	}
	return s.statuses(ctx, conn, strings.Join(queries, " union all "), o.Ends, func(word string) bool { return slices.Contains(chosen, word) }, args...)
}

// statusRows returns a query of statuses: as viewers see them, as they are stored (null: as viewers see them), and how many rows have each.
func statusRows(shown, stored, count, from string) string {
	return fmt.Sprintf(`(select left(coalesce(%[1]s, ''), 100) collate "C" as word, left(coalesce(%[2]s, %[1]s, ''), 100) collate "C" as stored, %[3]s as rows from %[4]s group by 1, 2)`,
		shown, stored, count, from)
}

// statuses adds the most frequent statuses and what each does, and names those that may be ends without anybody having said so. chosen
// reports whether an option gives a word; nil means that the options are not known. query is of statusRows; its $2 and so on are args.
func (s *Seen) statuses(ctx context.Context, conn *pgx.Conn, query string, ends []string, chosen func(word string) bool, args ...any) error {
	type status struct {
		Word, Stored     string
		Rows, Place, All int
	}
	found, err := collect(ctx, conn, "the statuses", pgx.RowToStructByPos[status], fmt.Sprintf(`
		with words as (select word, stored, sum(rows)::int as rows from (%s) x group by 1, 2),
			places as (select *, row_number() over (order by rows desc, word, stored)::int as place, count(*) over ()::int as all_words from words)
		select * from places where place <= %d or word = any ($1::text[]) order by place limit 100`, query, maxStatuses), append([]any{looksLikeAnEnd}, args...)...)
	if err != nil {
		return err
	}
	var listed, final, unknown []string
	var finalOption, unknownOption string
	for _, w := range found {
		isChosen := chosen != nil && chosen(w.Word)
		option := ""
		if plainWord.MatchString(w.Word) && plainWord.MatchString(w.Stored) {
			option = "--ends " + ShellQuote(w.Word)
			if !isChosen {
				option = "--status " + ShellQuote(w.Stored) + "=completed, or =failed, or " + option
			}
		}
		does := "ends nothing"
		switch {
		case w.Word == "completed" || w.Word == "failed" || slices.Contains(ends, w.Word):
			does = "ends a row"
		case slices.Contains(looksLikeAnEnd, w.Word):
			final = append(final, fmt.Sprintf("%q (%d)", w.Word, w.Rows))
			finalOption = cmp.Or(finalOption, option)
		case chosen != nil && !isChosen && !slices.Contains(looksLikeNoEnd, w.Word):
			unknown = append(unknown, strconv.Quote(w.Word))
			unknownOption = cmp.Or(unknownOption, option)
		}
		as := ""
		if w.Stored != w.Word {
			as = " as " + strconv.Quote(w.Word)
		}
		if w.Place <= maxStatuses {
			listed = append(listed, fmt.Sprintf("%q%s (%d, %s)", w.Stored, as, w.Rows, does))
		}
	}
	if len(listed) > 0 {
		s.Notes = append(s.Notes, "statuses: "+strings.Join(listed, ", ")+more(found[0].All-len(listed)))
	}
	if len(unknown) > 0 {
		s.Notes = append(s.Notes, fmt.Sprintf("not known as an end or as none: %s%s; if a row has ended then, give %s", strings.Join(unknown[:min(len(unknown), maxUnknown)], ", "),
			more(len(unknown)-maxUnknown), cmp.Or(unknownOption, "--status WORD=completed, or =failed, or --ends WORD")))
	}
	if len(final) > 0 {
		s.warn("Run auditstream install again for this feed, with --status or --ends for each of these words.", "statuses that sound final and end no stream: %s; the streams of such rows stay open: for each give, as here for the first, %s", strings.Join(final, ", "), finalOption)
	}
	return nil
}

// more says how many names are left out of a list.
func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

// plainWord matches words that are safe to show in a command; others could be anybody's.
var plainWord = regexp.MustCompile(`^[\pL\pN_][\pL\pN_. -]*$`)

// statusLabels returns the words that a status can have, whether rows have them or not: an enum's labels, those that a check of the column or its
// domain lists, or true and false.
func statusLabels(ctx context.Context, conn *pgx.Conn, t *table, s *source) ([]string, error) {
	switch {
	case !s.isColumn():
		return nil, nil
	case s.column.builtInBase() == "bool":
		return []string{"true", "false"}, nil
	}
	found, err := collect(ctx, conn, "the labels of "+s.column.Name, pgx.RowToStructByPos[struct{ Label, Check string }], `
		with recursive types as (
			select a.attnum, a.atttypid as oid from pg_catalog.pg_attribute a where a.attrelid = $1 and a.attname = $2 and a.attnum > 0 and not a.attisdropped
			union all
			select types.attnum, t.typbasetype from types join pg_catalog.pg_type t on t.oid = types.oid where t.typtype = 'd'
		)
		select e.enumlabel::text, '' from types join pg_catalog.pg_enum e on e.enumtypid = types.oid
		union
		select '', pg_catalog.pg_get_constraintdef(k.oid) from types join pg_catalog.pg_constraint k on k.contype = 'c' and (k.conrelid = $1 and k.conkey = array[types.attnum] or k.contypid = types.oid)`,
		t.OID, s.column.Name)
	var labels []string
	for _, f := range found {
		if f.Check == "" {
			labels = append(labels, f.Label)
		} else if list := checkedList.FindStringSubmatch(f.Check); list != nil {
			for _, value := range listedValue.FindAllStringSubmatch(list[1], -1) {
				labels = append(labels, strings.ReplaceAll(value[1], "''", "'")+value[2])
			}
		}
	}
	return labels, err
}

// checkedList matches the definition of CHECK (column IN (...)), as PostgreSQL writes it, and listedValue one of its values.
var checkedList = regexp.MustCompile(`^CHECK \(\(*(?:"(?:[^"]|"")+"|\w+)\)?(?:::[\w ]+)? = ANY \(+ARRAY\[((?:(?:'(?:[^']|'')*'|-?\d+)[^',\]]*(?:, )?)+)\]`)

var listedValue = regexp.MustCompile(`(?:'((?:[^']|'')*)'|(-?\d+))[^',\]]*(?:, )?`)
