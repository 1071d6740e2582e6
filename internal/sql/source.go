package sql

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A source is what a shown value comes from: a column of the table, a path in one of json or jsonb, a ratio of two of these, one of them times a
// number, or what is left of 100; or a number that a text has under a name, as JSON is kept in columns of text. None of its expressions can raise an error, whatever the row holds: the rows of one read are read together.
type source struct {
	column *attribute
	path   []string // in column, which is json or jsonb
	over   *source  // what it is divided by, in per cent; nil: nothing
	times  string   // what it is multiplied by; "": nothing
	left   bool     // what is left of 100

	elsewhere *attribute // of another table, which is called alias in the view, found by column; nil: it is column itself
	alias     string
}

// ofNumbers are the options whose sources may be numbers in a text. Whose a row is cannot be: such a text may have a name several times.
var ofNumbers = []string{"--column progress", "--column geo_score", "--column total_pages", "--status"}

var nameInText = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

var factor = regexp.MustCompile(`^(.+)\*([0-9]{1,9}(?:\.[0-9]{1,9})?)$`)

// parseSource reads what was typed for --column NAME= or --field. A column that is called just so comes before what else it may mean.
func parseSource(t *table, option, text string) (*source, error) {
	if a := t.written(text); a != nil {
		return &source{column: a}, nil
	}
	if counted, ok := strings.CutPrefix(text, "100-"); ok {
		s, err := parseSource(t, option, counted)
		if err == nil && s.left {
			err = usagef("invalid %s=%s: want 100- once, like 100-pending/total", option, text)
		}
		if err == nil {
			s.left = true
		}
		return s, err
	}
	if part, whole, ok := strings.Cut(text, "/"); ok {
		s, err := parseSource(t, option, part)
		if err != nil {
			return nil, err
		}
		s.over, err = parseSource(t, option, whole)
		if err == nil && (s.over.over != nil || s.over.times != "" || s.times != "" || s.over.left) {
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
	parts := strings.Split(path, ".")
	switch base := a.builtInBase(); {
	case base == "json", base == "jsonb":
	case (base == "text" || base == "varchar") && slices.Contains(ofNumbers, option):
		if !nameInText.MatchString(path) {
			return nil, fmt.Errorf("invalid %s=%s: column %s is %s, of which a number is found by one name alone: want %[3]s.NAME", option, text, a.Name, a.Type)
		}
	default:
		return nil, fmt.Errorf("%s=%s: column %s of %s is %s, and only json and jsonb have parts; name the column alone, or one of json", option, text, a.Name, t.Display, a.Type)
	}
	if slices.Contains(parts, "") {
		return nil, usagef("%s=%s: a part of the path is empty; write column.name.name", option, text)
	}
	return &source{column: a, path: parts}, nil
}

// plain reports whether it is a column as it is.
func (s *source) plain() bool {
	return s.path == nil && !s.calculated() && s.elsewhere == nil
}

// calculated reports whether it is a number, and nothing as it is stored.
func (s *source) calculated() bool {
	return s.over != nil || s.times != "" || s.left || s.inText()
}

// inText reports whether it is a number in a text.
func (s *source) inText() bool {
	return s.path != nil && s.column.builtInBase() != "json" && s.column.builtInBase() != "jsonb"
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
	case encoding == "UTF8": // the expression takes seconds for a megabyte
		return fmt.Sprintf(`case when strpos(%[1]s::text, '\u') = 0 then %[1]s %[2]s %[3]s when octet_length(%[1]s::text) <= 65536 then `+
			`case when regexp_replace(%[1]s::text, '\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..', '', 'g') !~ '\\u(0000|[dD][89a-fA-F])' then %[1]s %[2]s %[3]s end end`, ref, operator, path)
	}
	return fmt.Sprintf(`case when strpos(%[1]s::text, '\u') = 0 then %[1]s %[2]s %[3]s end`, ref, operator, path)
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
	if s.calculated() {
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
		n = fmt.Sprintf(`case when (%[2]s) > 0 then 100 * (%[1]s) / (%[2]s) end`, n, whole)
	case s.times != "":
		n = fmt.Sprintf(`(%s) * %s::float8`, n, s.times)
	}
	if s.left {
		n = fmt.Sprintf("100 - (%s)", n)
	}
	return n
}

// alone is number without what it is divided or multiplied by, bounded so that neither raises an error.
func (s *source) alone(encoding string) string {
	switch {
	case s.inText():
		return textNumber.of(fmt.Sprintf(`substring(left(%s, 65536) collate "C" from '["'']%s["'']\s*:\s*["'']?([-+0-9.eE]+)')`, s.from(), s.path[0]))
	case s.path != nil:
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
	if s.calculated() {
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
