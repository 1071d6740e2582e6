package sql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// smallScan is from how many rows on, of all tables that a query scans together, a scan is reported. Below it PostgreSQL reads a table as
// fast as an index, and chooses by chance. A table that was never analysed counts as large.
const smallScan = 1000

// A Scan is a table that a query scans as a whole.
type Scan struct {
	Table   string   // with its schema; "": there is none
	Columns []string // those by which an index would find the rows, as far as the plan says
}

// Index says which index would help.
func (s Scan) Index() string {
	if len(s.Columns) == 0 {
		return "an index on its key"
	}
	return "an index of it that begins with " + strings.Join(s.Columns, " or ")
}

// Scanned returns the table that serve scans to find one row of a feed, or none when it uses indexes or the tables are small. It needs the
// right to read the view.
func Scanned(ctx context.Context, conn *pgx.Conn, f Feed) (Scan, error) {
	value := map[string]string{"": "1", "uuid": "'00000000-0000-0000-0000-000000000000'::pg_catalog.uuid", "text": "'x'::pg_catalog.text"}[f.Key]
	return inReadTransaction(ctx, conn, 0, func() (Scan, error) {
		return tableScanned(ctx, conn, fmt.Sprintf("select * from %s a where a.%s = %s", f.View, naming(f.Name).id(), value))
	})
}

// tableScanned returns the first table that a query scans as a whole. For this plan it turns off sequential scans and the joins that need
// them, because on a small table a scan is cheaper than any index and would hide that one is there.
func tableScanned(ctx context.Context, conn *pgx.Conn, query string) (Scan, error) {
	_, err := conn.Exec(ctx, `select pg_catalog.set_config(name, 'off', true)
		from pg_catalog.unnest('{enable_seqscan, enable_hashjoin, enable_mergejoin, jit}'::text[]) name`)
	if err != nil {
		return Scan{}, fmt.Errorf("set the planner's options: %w", err)
	}
	var text string
	err = conn.QueryRow(ctx, "explain (costs off, verbose, format json) "+query).Scan(&text)
	if err != nil {
		return Scan{}, err
	}
	var plans []struct{ Plan planNode }
	err = json.Unmarshal([]byte(text), &plans)
	if err != nil {
		return Scan{}, fmt.Errorf("read a plan: %w", err)
	}
	var scans []planNode
	for _, p := range plans {
		scans = append(scans, p.Plan.scans("")...)
	}
	return largeScan(ctx, conn, scans)
}

// largeScan describes the first of some scans; none, if all their tables together are small.
func largeScan(ctx context.Context, conn *pgx.Conn, scans []planNode) (first Scan, err error) {
	small, all := true, 0.0
	for _, s := range scans {
		var name string
		var rows float64
		err = conn.QueryRow(ctx, `select pg_catalog.format('%I.%I', n.nspname, c.relname), c.reltuples::pg_catalog.float8
			from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
			where n.nspname operator(pg_catalog.=) $1::pg_catalog.name and c.relname operator(pg_catalog.=) $2::pg_catalog.name`, s.Schema, s.Relation).Scan(&name, &rows)
		if errors.Is(err, pgx.ErrNoRows) { // it was renamed a moment ago
			continue
		}
		if err != nil {
			return Scan{}, fmt.Errorf("read the size of %s: %w", s.Relation, err)
		}
		if all += rows; rows < 0 || all >= smallScan {
			small = false
		}
		if first.Table == "" {
			first = Scan{name, s.compared()}
		}
	}
	if small {
		return Scan{}, nil
	}
	return first, nil
}

// A planNode is what tableScanned needs of a node of EXPLAIN's JSON.
type planNode struct {
	Type       string `json:"Node Type"`
	Schema     string
	Relation   string `json:"Relation Name"`
	Alias      string
	IndexCond  string `json:"Index Cond"`
	Filter     string
	JoinFilter string `json:"Join Filter"`
	Plans      []planNode
}

// scans returns the nodes that read a whole table; an index can be scanned as a whole, too. conditions are those of the joins above, and are
// added to the filter.
func (n planNode) scans(conditions string) (found []planNode) {
	conditions += " " + n.JoinFilter
	if n.Type == "Seq Scan" || (n.Type == "Index Scan" || n.Type == "Index Only Scan") && n.IndexCond == "" {
		n.Filter += " " + conditions
		found = append(found, n)
	}
	for _, below := range n.Plans {
		found = append(found, below.scans(conditions)...)
	}
	return found
}

// compared returns the node's columns that its filter compares with =.
func (n planNode) compared() (columns []string) {
	alias := `(?:` + regexp.QuoteMeta(n.Alias) + `|` + regexp.QuoteMeta(ident(n.Alias)) + `)`
	column := alias + `\.("(?:[^"]|"")+"|[\pL_][\pL\pN_$]*)`
	for _, match := range regexp.MustCompile(`[( ]`+column+`\)?(?:::[\w ]+)? = |= \(?`+column).FindAllStringSubmatch(n.Filter, -1) {
		if name := match[1] + match[2]; !slices.Contains(columns, name) {
			columns = append(columns, name)
		}
	}
	return columns
}
