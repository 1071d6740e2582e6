package sql

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A field is a value that the operator shows besides ours, with --field.
type field struct {
	name   string
	source *source
}

// parseField reads NAME, or NAME=SOURCE.
func parseField(t *table, text string) (field, error) {
	name, from, ok := strings.Cut(text, "=")
	if !ok {
		name = strings.ReplaceAll(text, ".", "_")
		from = text
	}
	if !fieldName.MatchString(name) || slices.Contains(viewColumns, name) || name == "id" || name == "audit_id" || name == "group_id" {
		return field{}, usagef("--field %s: give NAME or NAME=SOURCE, NAME of letters, digits and _, and none of ours (id, audit_id, group_id, %s)", text, strings.Join(viewColumns, ", "))
	}
	s, err := parseSource(t, "--field "+name, from)
	return field{name, s}, err
}

var fieldName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// shownFields returns the expression of the fields: members of a JSON object, with a comma before each.
func (m *mapping) shownFields(encoding string) string {
	var all []string
	for _, f := range m.fields {
		all = append(all, fmt.Sprintf(`',"%s":' || %s`, f.name, f.source.json(encoding)))
	}
	return "concat(" + strings.Join(all, ", ") + ")"
}
