package sql

import (
	"fmt"
	"slices"
	"strings"
)

// A Word is one of a status: what the table has, and what viewers see. Null and set are words of any column: that it is, and that it is not, null.
type Word struct{ Stored, Shown string }

// ParseWords reads WORD=SHOWN, several times; the error is a [UsageError].
func ParseWords(texts []string) (words []Word, err error) {
	for _, text := range texts {
		w, err := parseWord(text)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(words, func(other Word) bool { return other.Stored == w.Stored }) {
			return nil, usagef("--status %q: the word was given before; give each once", text)
		}
		words = append(words, w)
	}
	return words, nil
}

// parseWord reads WORD=SHOWN.
func parseWord(text string) (Word, error) {
	stored, shown, ok := strings.Cut(text, "=")
	w := Word{strings.ToLower(strings.TrimSpace(stored)), strings.ToLower(strings.TrimSpace(shown))}
	if !ok || w.Stored == "" || w.Shown == "" || len(w.Shown) > 100 {
		return w, usagef("--status %q: give WORD=SHOWN, like discarded=failed", text)
	}
	return w, nil
}

// statusOf is the expression of a status: what is stored, in lower case, without blanks at its ends where there are words, or what a word makes
// of it. A row without one is pending.
func statusOf(s *source, words []Word, encoding string) (string, error) {
	text := ""
	base := s.column.builtInBase()
	integer := slices.Contains([]string{"int2", "int4", "int8"}, base)
	switch {
	case s.over != nil || s.times != "":
		return "", fmt.Errorf("--column status=%s: a status is a word, not a ratio; name the column that holds it", s.column.Name)
	case s.path != nil:
		text = s.text(encoding)
	case s.column.Category == "S" || s.column.BaseKind == "e", integer || base == "bool":
		text = s.from() + "::text"
	}
	isNull := s.from() + " is not distinct from null"
	if s.path != nil {
		isNull = "(" + text + ") is null"
	}
	var null, set string
	var cases []string
	for _, w := range words {
		switch w.Stored {
		case "null":
			null = literal(w.Shown)
		case "set":
			set = literal(w.Shown)
		default:
			cases = append(cases, fmt.Sprintf("when %s then %s", literal(w.Stored), literal(w.Shown)))
		}
	}
	if text == "" && (set == "" || len(cases) > 0) {
		return "", fmt.Errorf("column %s, the status, is %s: of such a column null and set can be told apart, with --status set=completed --status null=running; or name one of text, an enum, an integer or a boolean",
			s.column.Name, s.column.Type)
	}
	if len(words) == 0 && !integer && base != "bool" {
		return statusText.of(s.statusRef(text)), nil
	}
	if null == "" {
		null = "'pending'"
	}
	rest := set
	stored := fmt.Sprintf(`btrim(lower((%s) collate "C"), E' \t\r\n')`, text)
	if rest == "" {
		rest = stored
	}
	if len(cases) > 0 {
		rest = fmt.Sprintf("case %s %s else %s end", stored, strings.Join(cases, " "), rest)
	}
	return fmt.Sprintf("case when %s then %s else %s end", isNull, null, rest), nil
}

// statusRef is what statusText takes.
func (s *source) statusRef(text string) string {
	if s.path != nil {
		return "(" + text + ")"
	}
	return s.from()
}
