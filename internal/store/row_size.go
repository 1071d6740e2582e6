package store

import (
	"cmp"
	"unicode/utf8"
)

// DefaultMaxRowBytes is the most text of one row that is shown, in bytes, unless LimitRows sets another limit.
const DefaultMaxRowBytes = 1 << 20

// LimitRows limits the text that is shown of one row, in bytes of UTF-8; 0 means DefaultMaxRowBytes. The fields come first, then the
// error, then the message; the text that goes beyond the limit is cut and ends with an ellipsis. The limit also bounds how long one row
// delays the others of the same read. Call it before the first read.
func (s *Store) LimitRows(bytes int) { s.maxBytes = cmp.Or(bytes, DefaultMaxRowBytes) }

// Cut returns how many reads of a row had to cut its text. Safe for concurrent use.
func (s *Store) Cut() uint64 { return s.cut.Load() }

// textLimit is how many characters of a text are read: one more than are shown, so that a longer text is recognised.
func (s *Store) textLimit() int { return s.maxBytes + 1 }

// shorten cuts the texts to limit bytes in all, and reports whether it had to. Fields that are too long are left out as a whole, because
// a part of them is not JSON.
func (a *Row) shorten(limit int) (cut bool) {
	if cut = len(a.Fields) > limit; cut {
		a.Fields = ""
	}
	rest := limit - len(a.Fields)
	if a.Status == "failed" { // otherwise the error is not shown
		rest = shortenText(&a.Error, rest, &cut)
	}
	shortenText(&a.Message, rest, &cut)
	return cut
}

// shortenText cuts one text to limit bytes, sets cut if it had to, and returns how many bytes of limit are left.
func shortenText(text **string, limit int, cut *bool) (rest int) {
	const ellipsis = "…"
	if *text == nil || len(**text) <= limit {
		return limit - len(deref(*text))
	}
	short := ""
	if end := limit - len(ellipsis); end >= 0 {
		for end > 0 && !utf8.RuneStart((**text)[end]) {
			end--
		}
		short = (**text)[:end] + ellipsis
	}
	*text, *cut = &short, true
	return 0
}
