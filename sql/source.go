package sql

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A source is what a shown value comes from: a column of the table, a path in one of json or jsonb, a ratio of two of these, or one of
// them times a number. None of its expressions can raise an error, whatever the row holds: the rows of one read are read together.
type source struct {
	column *attribute
	path   []string // in column, which is json or jsonb
	over   *source  // what it is divided by, in per cent; nil: nothing
	times  string   // what it is multiplied by; "": nothing

	elsewhere *attribute // of another table, which is called alias in the view, found by column; nil: it is column itself
	alias     string
}

var factor = regexp.MustCompile(`^(.+)\*([0-9]{1,9}(?:\.[0-9]{1,9})?)$`)

// parseSource reads what was typed for --column NAME= or --field. A column that is called just so comes before what else it may mean.
func parseSource(t *table, option, text string) (*source, error) {
	if a := t.written(text); a != nil {
		return &source{column: a}, nil
	}
	if part, whole, ok := strings.Cut(text, "/"); ok {
		s, err := parseSource(t, option, part)
		if err != nil {
			return nil, err
		}
		s.over, err = parseSource(t, option, whole)
		if err == nil && (s.over.over != nil || s.over.times != "" || s.times != "") {
			err = usagef("%s=%s: a ratio is of two columns or paths, like done/total", option, text)
		}
		return s, err
	}
	if match := factor.FindStringSubmatch(text); match != nil {
		s, err := parseSource(t, option, match[1])
		if err == nil {
			s.times = match[2]
		}
		return s, err
	}
	name, path, ok := strings.Cut(text, ".")
	a := t.written(name)
	if !ok || a == nil {
		return nil, fmt.Errorf("%s has no column %s, which %s=%s names (it has %s)", t.Display, text, option, text, t.names())
	}
	if base := a.builtInBase(); base != "json" && base != "jsonb" {
		return nil, fmt.Errorf("%s=%s: column %s of %s is %s, and only json and jsonb have parts; name the column alone, or one of json", option, text, a.Name, t.Display, a.Type)
	}
	parts := strings.Split(path, ".")
	if slices.Contains(parts, "") {
		return nil, usagef("%s=%s: a part of the path is empty; write column.name.name", option, text)
	}
	return &source{column: a, path: parts}, nil
}

// plain reports whether it is a column as it is.
func (s *source) plain() bool {
	return s.path == nil && s.over == nil && s.times == "" && s.elsewhere == nil
}

// columns are those of the table that it is made of.
func (s *source) columns() []*attribute {
	all := []*attribute{s.column}
	if s.over != nil {
		all = append(all, s.over.column)
	}
	return all
}

func (s *source) from() string {
	if s.elsewhere != nil {
		return s.elsewhere.from(s.alias)
	}
	return s.column.from("a")
}

// shown is the column whose value it is.
func (s *source) shown() *attribute { return cmp.Or(s.elsewhere, s.column) }

// at is the part of json at the path, by an operator, or null where its text could not be had: see jsonText.
func (s *source) at(operator, encoding string) string {
	path := "'{" + quotedPath(s.path) + "}'"
	ref := s.from()
	switch {
	case s.column.builtInBase() == "jsonb":
		return fmt.Sprintf(`%s %s %s`, ref, operator, path)
	case encoding == "UTF8":
		return fmt.Sprintf(`case when regexp_replace(%[1]s::text, '\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..', '', 'g') !~ '\\u(0000|[dD][89a-fA-F])' then %[1]s %[2]s %[3]s end`, ref, operator, path)
	}
	return fmt.Sprintf(`case when %[1]s::text !~ '\\u' then %[1]s %[2]s %[3]s end`, ref, operator, path)
}

// quotedPath is a list of names as an array's text has it, inside a literal.
func quotedPath(path []string) string {
	quoted := make([]string, len(path))
	for i, name := range path {
		quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `'`, `''`).Replace(name) + `"`
	}
	return strings.Join(quoted, ",")
}

// text is its value as a text.
func (s *source) text(encoding string) string {
	if s.over != nil || s.times != "" {
		return "(" + s.number(encoding) + ")::text"
	}
	return s.ownText(encoding)
}

// ownText is text without what it is divided or multiplied by.
func (s *source) ownText(encoding string) string {
	switch base := s.shown().builtInBase(); {
	case s.path != nil:
		return s.at("#>>", encoding)
	case base == "text":
		return s.from()
	case base == "jsonb":
		return jsonbText.of(s.from())
	case base == "json" && encoding == "UTF8":
		return jsonText.of(s.from())
	case base == "json":
		return jsonTextASCII.of(s.from())
	}
	return s.from() + "::text"
}

// textNumber is a text that is a number, null otherwise. What it lets through is within double precision.
const textNumber expression = `case when %[1]s collate "C" ~ '^\s*[-+]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][-+]?[0-9]{1,2})?\s*%%?\s*$' then rtrim(%[1]s collate "C", E' \t\r\n%%')::float8 end`

// number is its value in double precision, null where it is none.
func (s *source) number(encoding string) string {
	n := s.alone(encoding)
	switch {
	case s.over != nil:
		whole := s.over.alone(encoding)
		return fmt.Sprintf(`case when (%[2]s) > 0 then 100 * (%[1]s) / (%[2]s) end`, n, whole)
	case s.times != "":
		return fmt.Sprintf(`(%s) * %s::float8`, n, s.times)
	}
	return n
}

// alone is number without what it is divided or multiplied by, bounded so that neither raises an error.
func (s *source) alone(encoding string) string {
	if s.path != nil {
		return textNumber.of("(" + s.ownText(encoding) + ")")
	}
	ref := s.from()
	switch s.column.builtInBase() {
	case "int2", "int4", "int8":
		return ref + "::float8"
	case "float4", "float8":
		return fmt.Sprintf(`case when abs(%[1]s::float8) < 1e100 and (abs(%[1]s::float8) > 1e-100 or %[1]s = 0) then %[1]s::float8 end`, ref)
	case "numeric":
		return fmt.Sprintf(`case when abs(%[1]s) < 1e-100 then 0 when abs(%[1]s) < 1e100 then %[1]s::float8 end`, ref)
	}
	return textNumber.of("(" + s.ownText(encoding) + ")")
}

// json is its value in JSON, null where there is none to show. Timestamps that have no zone are taken for UTC, which is how frameworks store
// them; RFC 3339 has no years of other than four digits.
func (s *source) json(encoding string) string {
	if s.over != nil || s.times != "" {
		return "(" + s.number(encoding) + ")::text"
	}
	if s.path != nil {
		return fmt.Sprintf(`nullif((%s)::text, 'null')`, s.at("#>", encoding))
	}
	ref := s.from()
	quoted := fmt.Sprintf(`to_json(%s)::text`, s.text(encoding))
	const iso = `YYYY-MM-DD"T"HH24:MI:SS.US"Z"`
	switch s.column.builtInBase() {
	case "int2", "int4", "bool", "json", "jsonb":
		return ref + "::text"
	case "int8":
		return fmt.Sprintf(`case when %[1]s between -9007199254740992 and 9007199254740992 then %[1]s::text else %[2]s end`, ref, quoted)
	case "float4", "float8":
		return fmt.Sprintf(`case when %[1]s not in ('NaN', 'Infinity', '-Infinity') then %[1]s::text end`, ref)
	case "numeric":
		return fmt.Sprintf(`case when %[1]s::text in ('NaN', 'Infinity', '-Infinity') then null when scale(%[1]s) = 0 and abs(%[1]s) > 9007199254740992 then %[2]s else %[1]s::text end`, ref, quoted)
	case "timestamptz":
		return fmt.Sprintf(`case when %[1]s between '0001-01-02 00:00+00' and '9999-12-30 00:00+00' then to_json(to_char(%[1]s at time zone 'UTC', '%[2]s'))::text end`, ref, iso)
	case "timestamp":
		return fmt.Sprintf(`case when %[1]s between '0001-01-01' and '9999-12-31' then to_json(to_char(%[1]s, '%[2]s'))::text end`, ref, iso)
	case "date":
		return fmt.Sprintf(`case when %[1]s between '0001-01-01' and '9999-12-31' then to_json(to_char(%[1]s, 'YYYY-MM-DD'))::text end`, ref)
	}
	return quoted
}
