package sql

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// The comment on the view holds Options.Columns between the two sums: an upgrade must not show a column that had been left out.
var remembered = regexp.MustCompile(`(?s)^auditstream [0-9]{1,9} [0-9a-f]{32} (\{.*\}) [0-9a-f]{32}$`)

// rememberedColumns reads them; ok is false where an earlier program, or psql, installed.
func rememberedColumns(comment string) (columns map[string]string, ok bool) {
	match := remembered.FindStringSubmatch(comment)
	if match == nil || json.Unmarshal([]byte(match[1]), &columns) != nil {
		return nil, false // somebody has written there
	}
	return columns, true
}

// keepColumns adds to given what an earlier install was given and this one was not; kept says what that is, as it would be
// written for --column.
func (i *installed) keepColumns(given map[string]string) (all map[string]string, kept []string) {
	all = make(map[string]string)
	before, _ := rememberedColumns(i.Comment)
	for name, value := range before {
		if _, again := given[name]; !again {
			all[name] = value
			kept = append(kept, name+"="+value)
		}
	}
	maps.Copy(all, given)
	slices.Sort(kept)
	return all, kept
}

// unlike refuses to show other columns than an earlier install of which nothing is known did, unless somebody says which.
func (i *installed) unlike(given map[string]string, m *mapping) error {
	_, known := rememberedColumns(i.Comment)
	if !i.ours() || known || len(given) > 0 || len(i.Reads) != 1 {
		return nil
	}
	for _, name := range ours {
		if !slices.ContainsFunc(i.Columns, func(c viewColumn) bool { return c.Name == name }) {
			return nil // no install left it so: it is being repaired
		}
	}
	var want []string
	for _, source := range m.sources() {
		want = append(want, source.Name)
	}
	var changes []string
	if more := without(want, i.Reads[0].Columns); len(more) > 0 {
		changes = append(changes, "show "+strings.Join(more, ", "))
	}
	if less := without(i.Reads[0].Columns, want); len(less) > 0 {
		changes = append(changes, "no longer show "+strings.Join(less, ", "))
	}
	if len(changes) == 0 {
		return nil
	}
	return fmt.Errorf("auditstream was installed with other columns: this would %s; give the --column options of then, or"+
		" --column OURS=THEIRS for what is to change (OURS= leaves it out)", strings.Join(changes, ", and "))
}

// without are the names of all that are not among some, each once.
func without(all, some []string) (rest []string) {
	for _, name := range all {
		if !slices.Contains(some, name) && !slices.Contains(rest, name) {
			rest = append(rest, name)
		}
	}
	return rest
}

// remember writes down what of the table each given name means.
func remember(given map[string]string, m *mapping) string {
	resolved := map[string]string{"id": m.key.Name}
	for _, c := range m.columns {
		resolved[c.name] = ""
		if c.source != nil {
			resolved[c.name] = c.source.Name
		}
	}
	maps.DeleteFunc(resolved, func(name, _ string) bool { _, ok := given[name]; return !ok })
	text, _ := json.Marshal(resolved) // strings are always written
	return string(text)
}
