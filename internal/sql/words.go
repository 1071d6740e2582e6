package sql

import (
	"fmt"
	"slices"
	"strings"
)

// A Word maps a stored status to the one that viewers see. For a column of any type, the stored word null matches null, and set matches
// every other value.
type Word struct {
	// Source is where the word is stored, as in Options.Columns; empty means the status column. Words of other sources come before those of
	// the status, and the first one that matches a row counts.
	Source        string `json:",omitempty"`
	Stored, Shown string
}

// ParseWords reads texts of the form WORD=SHOWN or SOURCE=WORD=SHOWN. Its error is of one [UsageError] for each text that is wrong.
func ParseWords(texts []string) (words []Word, err error) {
	var refused refusals
	for _, text := range texts {
		w, err := parseWord(text)
		if err == nil && slices.ContainsFunc(words, func(other Word) bool { return other.Source == w.Source && other.Stored == w.Stored }) {
			err = usagef("--status %q: the word was given before; give each once", text)
		}
		refused.add(err)
		words = append(words, w)
	}
	return words, refused.err()
}

// lower is PostgreSQL's lower() in the collation "C", which changes the letters of ASCII alone.
func lower(text string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, text)
}

// parseWord reads WORD=SHOWN or SOURCE=WORD=SHOWN.
func parseWord(text string) (Word, error) {
	parts := strings.Split(text, "=")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") || len(parts[len(parts)-1]) > 100 {
		return Word{}, usagef("invalid --status %q: want WORD=SHOWN, like discarded=failed, or COLUMN=WORD=SHOWN, like cancelled_at=set=cancelled", text)
	}
	w := Word{Stored: lower(parts[len(parts)-2]), Shown: strings.ToLower(parts[len(parts)-1])}
	if len(parts) == 3 {
		w.Source = parts[0]
	}
	return w, nil
}

// A rule is a word of a source other than the status.
type rule struct {
	source *source
	word   Word
}

// parseRules returns the words that have a source of their own, with it.
func parseRules(t *table, words []Word) (rules []rule, err error) {
	var refused refusals
	for _, w := range words {
		if w.Source == "" {
			continue
		}
		s, err := parseSource(t, "--status", w.Source)
		if err == nil && w.Stored != "null" && w.Stored != "set" && s.words("") == "" {
			err = fmt.Errorf("invalid --status %s=%s=%s: column %s is %s, for which only the words null and set can be given: want %[1]s=set=%[3]s or %[1]s=null=%[3]s",
				w.Source, w.Stored, w.Shown, s.column.Name, s.column.Type)
		}
		if refused.add(err); err == nil {
			rules = append(rules, rule{s, w})
		}
	}
	return rules, refused.err()
}

// condition returns an expression that is true for rows with the word.
func (r rule) condition(encoding string) string {
	switch r.word.Stored {
	case "null":
		return r.source.isNull(encoding)
	case "set":
		return "not (" + r.source.isNull(encoding) + ")"
	}
	return stored(r.source.words(encoding)) + " = " + literal(r.word.Stored)
}

// words returns the text that is compared with words, or "" when only null and set can be told apart.
func (s *source) words(encoding string) string {
	base := s.column.builtInBase()
	switch {
	case s.calculated(), s.path != nil:
		return s.text(encoding)
	case s.column.Category == "S" || s.column.BaseKind == "e", isInteger(base) || base == "bool":
		return s.ref() + "::text"
	}
	return ""
}

// isNull returns an expression that is true for rows without a value.
func (s *source) isNull(encoding string) string {
	if s.calculated() || s.path != nil {
		return "(" + s.text(encoding) + ") is null"
	}
	return s.ref() + " is not distinct from null"
}

// stored returns a text in the form in which it is compared with words: lower case, without white space at its ends.
func stored(text string) string {
	return fmt.Sprintf(`btrim(lower((%s) collate "C"), E' \t\r\n')`, text)
}

func isInteger(base string) bool { return base == "int2" || base == "int4" || base == "int8" }

// statusOf returns the expression of the status: the word of the first rule that matches; else the word for the stored status; else the stored
// status in lower case and trimmed. A row without a status is pending.
func statusOf(s *source, rules []rule, words []Word, encoding string) (string, error) {
	if s.calculated() {
		return "", fmt.Errorf("invalid --column status=%s: a status is a word, not a number that is calculated; name the column that holds it", s)
	}
	own, err := ownStatus(s, words, encoding)
	if err != nil || len(rules) == 0 {
		return own, err
	}
	shown := "case"
	for _, r := range rules {
		shown += fmt.Sprintf(" when %s then %s", r.condition(encoding), literal(r.word.Shown))
	}
	return shown + " else " + own + " end", nil
}

// ownStatus returns statusOf without rules.
func ownStatus(s *source, words []Word, encoding string) (string, error) {
	text := s.words(encoding)
	var null, set string
	var cases []string
	for _, w := range words {
		switch {
		case w.Source != "":
		case w.Stored == "null":
			null = literal(w.Shown)
		case w.Stored == "set":
			set = literal(w.Shown)
		default:
			cases = append(cases, fmt.Sprintf("when %s then %s", literal(w.Stored), literal(w.Shown)))
		}
	}
	if text == "" && (set == "" || len(cases) > 0) {
		return "", fmt.Errorf("column %s, the status, is %s: only the words null and set can be given for it, with --status set=completed --status null=running; or name one of text, an enum, an integer or a boolean",
			s.column.Name, s.column.Type)
	}
	if base := s.column.builtInBase(); null+set == "" && len(cases) == 0 && !isInteger(base) && base != "bool" {
		return statusText.of(text), nil
	}
	if null == "" {
		null = "'pending'"
	}
	rest := set
	if rest == "" {
		rest = stored(text)
	}
	if len(cases) > 0 {
		rest = fmt.Sprintf("case %s %s else %s end", stored(text), strings.Join(cases, " "), rest)
	}
	return fmt.Sprintf("case when %s then %s else %s end", s.isNull(encoding), null, rest), nil
}
