package store

import (
	"cmp"
	"unicode/utf8"
)

// DefaultMaxRowBytes is how much text is shown of a row, unless LimitRows says otherwise.
const DefaultMaxRowBytes = 1 << 20

// LimitRows bounds the text that is shown of a row, in bytes of UTF-8; 0: DefaultMaxRowBytes. An error beyond it, and then a message, is cut and
// ends with an ellipsis. What one row costs the others who wait for the same read is bounded with it. Call it before the
// first read.
func (s *Store) LimitRows(bytes int) { s.maxBytes = cmp.Or(bytes, DefaultMaxRowBytes) }

// Cut returns how many times a row was read whose text had to be cut. Safe for concurrent use.
func (s *Store) Cut() uint64 { return s.cut.Load() }

// asked is how many characters of a text are read: one more than are shown, so that it is seen to be longer.
func (s *Store) asked() int { return s.maxBytes + 1 }

// shorten cuts the texts, and reports whether it had to. Of fields that are too long all are left out: a part of them is no JSON.
func (a *Audit) shorten(most int) (cut bool) {
	if cut = len(a.Fields) > most; cut {
		a.Fields = ""
	}
	rest := most - len(a.Fields)
	if a.Status == "failed" { // else it is not shown
		rest = shorten(&a.Error, rest, &cut)
	}
	shorten(&a.Message, rest, &cut)
	return cut
}

// shorten returns what is left of most.
func shorten(text **string, most int, cut *bool) (rest int) {
	const ellipsis = "…"
	if *text == nil || len(**text) <= most {
		return most - len(deref(*text))
	}
	short := ""
	if end := most - len(ellipsis); end >= 0 {
		for end > 0 && !utf8.RuneStart((**text)[end]) {
			end--
		}
		short = (**text)[:end] + ellipsis
	}
	*text, *cut = &short, true
	return 0
}
