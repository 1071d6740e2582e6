package sql

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A source is where a shown value comes from: a column, a path in json or jsonb, or a number under a name in a text column that holds JSON; and
// calculations with them: a ratio of two, one times a number, and 100 minus one. None of its expressions can raise an error, whatever
// the row holds, because one query reads many rows.
type source struct {
	column     *attribute
	path       []string // in column; nil: the column itself
	divisor    *source  // the result is 100 * value / divisor; nil: no division
	multiplier string   // the result is value * multiplier; "": no multiplication
	remainder  bool     // the result is 100 - value

	lookedUp *attribute // the column of another table, called alias in the view, that a lookup finds by column; nil: no lookup
	alias    string
}

// numberOptions are the options whose sources may be numbers in a text. Owners are not among them, because a text may have a name several
// times.
var numberOptions = []string{"--column progress", "--column geo_score", "--column total_pages", "--status"}

var nameInText = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

var factor = regexp.MustCompile(`^(.+)\*([0-9]{1,9}(?:\.[0-9]{1,9})?)$`)

// parseSource reads the source of an option, such as --column NAME= or --field. A column of exactly that name comes first.
func parseSource(t *table, option, text string) (*source, error) {
	if a := t.columnByName(text); a != nil {
		return &source{column: a}, nil
	}
	if counted, ok := strings.CutPrefix(text, "100-"); ok {
		s, err := parseSource(t, option, counted)
		if err == nil && s.remainder {
			err = usagef("invalid %s=%s: want 100- once, like 100-pending/total", option, text)
		}
		if err == nil {
			s.remainder = true
		}
		return s, err
	}
	if part, whole, ok := strings.Cut(text, "/"); ok {
		var refused refusals
		s, err := parseSource(t, option, part)
		refused.add(err)
		divisor, err := parseSource(t, option, whole)
		if refused.add(err); len(refused) > 0 {
			return nil, refused.err()
		}
		if divisor.divisor != nil || divisor.multiplier != "" || s.multiplier != "" || divisor.remainder {
			return nil, usagef("%s=%s: a ratio is of two columns or paths, like done/total", option, text)
		}
		s.divisor = divisor
		return s, nil
	}
	if match := factor.FindStringSubmatch(text); match != nil {
		s, err := parseSource(t, option, match[1])
		if err == nil {
			s.multiplier = match[2]
		}
		return s, err
	}
	return parsePath(t, option, text)
}

// parsePath reads a column and a path in it.
func parsePath(t *table, option, text string) (*source, error) {
	parts := splitName(text)
	if parts == nil && strings.Contains(text, `"`) {
		return nil, usagef(`invalid %s=%s: want quotes around a whole name of the path, as in column."a.b".c; names with / and * cannot be given`, option, text)
	}
	name, path, ok := strings.Cut(text, ".")
	if len(parts) > 0 {
		name, path = parts[0], strings.TrimPrefix(text, parts[0]+".")
	}
	a := t.columnByName(name)
	if !ok || a == nil {
		return nil, t.noColumn(name, "%s has no column %s, which %s=%[2]s names", t.Display, text, option)
	}
	switch base := a.builtInBase(); {
	case base == "json", base == "jsonb":
	case (base == "text" || base == "varchar") && slices.Contains(numberOptions, option):
		if !nameInText.MatchString(path) {
			return nil, fmt.Errorf("invalid %s=%s: column %s is %s, of which a number is found by one name alone: want %[3]s.NAME", option, text, a.Name, a.Type)
		}
	default:
		return nil, fmt.Errorf("%s=%s: column %s of %s is %s, and only json and jsonb have parts; name the column alone, or one of json, or select the value in a query of your own, with --view", option, text, a.Name, t.Display, a.Type)
	}
	if parts == nil {
		return nil, usagef("%s=%s: a part of the path is empty; write column.name.name", option, text)
	}
	return &source{column: a, path: unquoted(parts[1:])}, nil
}

// unquoted returns the names of a path without the quotes around those that have them.
func unquoted(parts []string) []string {
	names := slices.Clone(parts)
	for i, name := range names {
		if strings.HasPrefix(name, `"`) {
			names[i] = strings.ReplaceAll(name[1:len(name)-1], `""`, `"`)
		}
	}
	return names
}

// isColumn reports whether the source is just a column of the table.
func (s *source) isColumn() bool {
	return s.path == nil && !s.calculated() && s.lookedUp == nil
}

// calculated reports whether the source is a calculated number, and not a stored value.
func (s *source) calculated() bool {
	return s.divisor != nil || s.multiplier != "" || s.remainder || s.inText()
}

// inText reports whether the source is a number in a text column.
func (s *source) inText() bool {
	return s.path != nil && s.column.builtInBase() != "json" && s.column.builtInBase() != "jsonb"
}

// columns returns the table's columns that the source uses.
func (s *source) columns() []*attribute {
	all := []*attribute{s.column}
	if s.divisor != nil {
		all = append(all, s.divisor.column)
	}
	return all
}

func (s *source) ref() string {
	if s.lookedUp != nil {
		return s.lookedUp.ref(s.alias)
	}
	return s.column.ref("a")
}

// shown returns the column that holds the value.
func (s *source) shown() *attribute { return cmp.Or(s.lookedUp, s.column) }

// jsonPath returns the json at the path, by an operator, or null when its text cannot be shown in this encoding: see jsonText.
func (s *source) jsonPath(operator, encoding string) string {
	path := "'{" + quotedPath(s.path) + "}'"
	ref := s.ref()
	switch {
	case s.column.builtInBase() == "jsonb":
		return fmt.Sprintf(`%s %s %s`, ref, operator, path)
	case encoding == "UTF8": // the expression takes seconds for a megabyte
		return fmt.Sprintf(`case when strpos(%[1]s::text, '\u') = 0 then %[1]s %[2]s %[3]s when octet_length(%[1]s::text) <= 65536 then `+
			`case when regexp_replace(%[1]s::text, '\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..', '', 'g') !~ '\\u(0000|[dD][89a-fA-F])' then %[1]s %[2]s %[3]s end end`, ref, operator, path)
	}
	return fmt.Sprintf(`case when strpos(%[1]s::text, '\u') = 0 then %[1]s %[2]s %[3]s end`, ref, operator, path)
}

// quotedPath writes names as the text of an array, inside a literal.
func quotedPath(path []string) string {
	quoted := make([]string, len(path))
	for i, name := range path {
		quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `'`, `''`).Replace(name) + `"`
	}
	return strings.Join(quoted, ",")
}

// text returns the expression of the value as a text.
func (s *source) text(encoding string) string {
	if s.calculated() {
		return "(" + s.number(encoding) + ")::text"
	}
	return s.operandText(encoding)
}

// operandText returns text before any calculation.
func (s *source) operandText(encoding string) string {
	switch base := s.shown().builtInBase(); {
	case s.path != nil:
		return s.jsonPath("#>>", encoding)
	case base == "text":
		return s.ref()
	case base == "jsonb":
		return jsonbText.of(s.ref())
	case base == "json" && encoding == "UTF8":
		return jsonText.of(s.ref())
	case base == "json":
		return jsonTextASCII.of(s.ref())
	}
	return s.ref() + "::text"
}

// textNumber converts a text to a number; one that is not a number becomes null. Its pattern allows only what double precision can hold.
const textNumber expression = `case when %[1]s collate "C" ~ '^\s*[-+]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][-+]?[0-9]{1,2})?\s*%%?\s*$' then rtrim(%[1]s collate "C", E' \t\r\n%%')::float8 end`

// number returns the expression of the value in double precision, null when it is not a number.
func (s *source) number(encoding string) string {
	n := s.operand(encoding)
	switch {
	case s.divisor != nil:
		whole := s.divisor.operand(encoding)
		n = fmt.Sprintf(`case when (%[2]s) > 0 then 100 * (%[1]s) / (%[2]s) end`, n, whole)
	case s.multiplier != "":
		n = fmt.Sprintf(`(%s) * %s::float8`, n, s.multiplier)
	}
	if s.remainder {
		n = fmt.Sprintf("100 - (%s)", n)
	}
	return n
}

// operand returns number before any calculation, bounded so that no calculation overflows.
func (s *source) operand(encoding string) string {
	switch {
	case s.inText():
		return textNumber.of(fmt.Sprintf(`substring(left(%s, 65536) collate "C" from '["'']%s["'']\s*:\s*["'']?([-+0-9.eE]+)')`, s.ref(), s.path[0]))
	case s.path != nil:
		return textNumber.of("(" + s.operandText(encoding) + ")")
	}
	ref := s.ref()
	switch s.column.builtInBase() {
	case "int2", "int4", "int8":
		return ref + "::float8"
	case "float4", "float8":
		return fmt.Sprintf(`case when abs(%[1]s::float8) < 1e100 and (abs(%[1]s::float8) > 1e-100 or %[1]s = 0) then %[1]s::float8 end`, ref)
	case "numeric":
		return fmt.Sprintf(`case when abs(%[1]s) < 1e-100 then 0 when abs(%[1]s) < 1e100 then %[1]s::float8 end`, ref)
	}
	return textNumber.of("(" + s.operandText(encoding) + ")")
}

// json returns the expression of the value in JSON, null when there is none. Timestamps without a zone count as UTC, which is how frameworks
// store them. Years that do not have four digits become null, because RFC 3339 cannot write them.
func (s *source) json(encoding string) string {
	if s.calculated() {
		return "(" + s.number(encoding) + ")::text"
	}
	if s.path != nil {
		return fmt.Sprintf(`nullif((%s)::text, 'null')`, s.jsonPath("#>", encoding))
	}
	ref := s.ref()
	if s.column.isArray() {
		return s.column.arrayJSON(ref)
	}
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
