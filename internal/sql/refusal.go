package sql

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// refusals are the reasons why a table cannot be adopted as asked. They are collected, so that the operator learns of all of them at once.
type refusals []error

// add adds an error, or each of those that were joined; nil adds nothing.
func (r *refusals) add(err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		*r = append(*r, joined.Unwrap()...)
	} else if err != nil {
		*r = append(*r, err)
	}
}

// err returns all reasons as one error, a line each. Of the lines about one table only the last lists its columns.
func (r refusals) err() error {
	listed := make(map[*table]bool)
	for _, err := range slices.Backward(r) {
		if missing, ok := errors.AsType[*noColumnError](err); ok {
			missing.short = listed[missing.table]
			listed[missing.table] = true
		}
	}
	return errors.Join(r...)
}

// A noColumnError says that a table lacks a column.
type noColumnError struct {
	table  *table
	text   string
	likely []string // columns of the table that may be meant
	short  bool     // the table's columns are listed elsewhere
}

func (e *noColumnError) Error() string {
	text := e.text
	if len(e.likely) > 0 {
		text += "; perhaps " + strings.Join(e.likely, " or ")
	}
	if !e.short {
		text += " (it has " + e.table.names() + ")"
	}
	return text
}

// noColumn returns the error for a column that an option names.
func (t *table) noColumn(name, text string, args ...any) error {
	return &noColumnError{table: t, text: fmt.Sprintf(text, args...), likely: similar(name, t.columnNames())}
}

func (t *table) columnNames() []string {
	names := make([]string, len(t.Columns))
	for i, a := range t.Columns {
		names[i] = a.Name
	}
	return names
}

// names lists the columns for a message: the first twenty, which are enough to recognise a table.
func (t *table) names() string {
	if len(t.Columns) == 0 {
		return "no columns"
	}
	return some(t.columnNames())
}

// some lists the first twenty of some names for a message, on one line whatever they are.
func some(names []string) string {
	var listed []string
	for _, name := range names[:min(len(names), 20)] {
		if !printable(name) {
			name = strconv.Quote(name)
		}
		listed = append(listed, name)
	}
	if len(names) > 20 {
		listed = append(listed, "...")
	}
	return strings.Join(listed, ", ")
}

func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// maxLikely is how many names a message proposes at most.
const maxLikely = 3

// wordsFor are what applications call that which we have another name for, the likeliest first.
var wordsFor = map[string][]string{
	"user_id":     {"owner", "user", "created_by", "creator", "author", "account", "customer", "uid"},
	"status":      {"state", "status", "phase", "stage"},
	"progress":    {"percent", "percentage", "pct", "progress", "completion"},
	"message":     {"msg", "message", "note", "notes", "info", "details", "detail"},
	"geo_score":   {"score"},
	"total_pages": {"page_count", "pages"},
	"error":       {"failure_reason", "failure", "error", "reason", "exception"},
}

// likely returns the table's columns that may hold what we call name, by their names and types: first those that are called as in wordsFor, then
// enums for a status, then those whose names have such a word.
func (t *table) likely(name string) (found []string) {
	fits := func(a *attribute) bool {
		byType, number := numbers[name]
		switch {
		case !printable(a.Name):
			return false
		case name == "status":
			return (&source{column: a}).words("") != ""
		case number:
			return byType[a.builtInBase()] != ""
		}
		return name == "user_id" || a.isText()
	}
	add := func(is func(a *attribute) bool) {
		for i := range t.Columns {
			if a := &t.Columns[i]; len(found) < maxLikely && fits(a) && is(a) && !slices.Contains(found, a.Name) {
				found = append(found, a.Name)
			}
		}
	}
	for _, word := range wordsFor[name] {
		add(func(a *attribute) bool { return folded(a.Name) == word })
	}
	add(func(a *attribute) bool { return name == "status" && a.BaseKind == "e" })
	for _, word := range wordsFor[name] {
		add(func(a *attribute) bool { return strings.Contains("_"+folded(a.Name)+"_", "_"+word+"_") })
	}
	return found
}

// similar returns those of names that may have been meant by what was typed, the most similar first.
func similar(typed string, names []string) []string {
	if typed = strings.ReplaceAll(folded(typed), "_", ""); typed == "" || len(typed) > 100 {
		return nil
	}
	far := make(map[string]int)
	for _, name := range names {
		plain := strings.ReplaceAll(folded(name), "_", "")
		d := distance(typed, plain)
		inside := min(len(typed), len(plain)) > 2 && (strings.Contains(plain, typed) || strings.Contains(typed, plain))
		if printable(name) && (inside || d <= len(typed)/3) {
			far[name] = d
		}
	}
	found := slices.SortedFunc(maps.Keys(far), func(a, b string) int { return cmp.Or(far[a]-far[b], strings.Compare(a, b)) })
	return found[:min(len(found), maxLikely)]
}

var newWord = regexp.MustCompile(`([\p{Ll}\pN])(\p{Lu})`)

// folded returns a name in lower case, its words with _ between: ownerId, "Owner id" and OWNER_ID become owner_id.
func folded(name string) string {
	words := strings.FieldsFunc(newWord.ReplaceAllString(name, "${1}_${2}"), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) })
	return strings.ToLower(strings.Join(words, "_"))
}

// distance returns how many bytes have to be added, removed or replaced to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			if a[i] != b[j] {
				diagonal++
			}
			diagonal, row[j+1] = row[j+1], min(diagonal, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
