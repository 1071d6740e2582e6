package store

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"unicode"
)

// Row is one row as viewers see it. It is called an audit also in feeds of other tables.
type Row struct {
	// Feed is the feed of the row; nil means [Audits].
	Feed *Feed
	// ID is the row's key in the application's table.
	ID Key
	// Status is pending, running, completed, failed, or whatever else the application stores, in lower case.
	Status string
	// Progress is a percentage, 0 to 100.
	Progress int
	// Message is the text for people. Like the fields below, it is left out while the column is NULL or missing.
	Message *string
	// GeoScore is the audit's result.
	GeoScore *float64
	// TotalPages is the number of pages analysed.
	TotalPages *int
	// Fields are what the operator shows besides, with --field: members of a JSON object, with a comma before each.
	Fields string
	// Error says what went wrong. Viewers see it only when the status is failed.
	Error *string

	// UserID and UserEmail name the owner, GroupID the group whose members also see the row. They are never sent.
	UserID, UserEmail, GroupID *string
}

// Terminal reports whether the row has ended: no further change is expected, and streams close.
func (a Row) Terminal() bool { return a.Feed.ends(a.Status) }

// Viewer is the authenticated user of a request, as the token names them.
type Viewer struct {
	// Subject is the value of the claim that names the user: sub, unless configured otherwise.
	Subject string
	// Email is the token's email claim. It is empty when the token says that it is not verified (email_verified is false).
	Email string
	// Groups are the groups that the token names.
	Groups []string
}

// OwnedBy reports whether v may see the row: its user_id equals v's subject; or the row has no user_id and its user_email equals v's
// address without regard to case; or its group_id is one of v's groups; or its feed is public. A row with none of these belongs to
// nobody. A blank text names nobody, so that an empty claim never matches an empty column.
func (a Row) OwnedBy(v Viewer) bool {
	return slices.ContainsFunc(a.Owners(), v.matches)
}

// foldEmail maps an address to lower case, but never a letter outside ASCII to one inside it. Unicode's folding makes
// U+212A (Kelvin sign) a "k" and U+017F (long s) an "s": two mailboxes would be one owner.
func foldEmail(s string) string {
	return strings.Map(func(r rune) rune {
		if l := unicode.ToLower(r); r < unicode.MaxASCII || l > unicode.MaxASCII {
			return l
		}
		return r
	}, s)
}

// head is the beginning of the JSON, in this order. Exactly one of the two ids is set.
type head struct {
	AuditID    json.RawMessage `json:"audit_id,omitempty"`
	ID         json.RawMessage `json:"id,omitempty"`
	Status     string          `json:"status"`
	Progress   int             `json:"progress"`
	Message    *string         `json:"message,omitempty"`
	GeoScore   *float64        `json:"geo_score,omitempty"`
	TotalPages *int            `json:"total_pages,omitempty"`
}

// JSON returns the row as the API's JSON object: one line, because JSON escapes line breaks, without one at its end.
func (a Row) JSON() []byte {
	h := head{Status: a.Status, Progress: a.Progress, Message: a.Message, GeoScore: a.GeoScore, TotalPages: a.TotalPages}
	if id := cmp.Or(a.Feed, Audits).Key.json(a.ID); a.Feed.isDefault() {
		h.AuditID = id
	} else {
		h.ID = id
	}
	if h.GeoScore != nil && (math.IsNaN(*h.GeoScore) || math.IsInf(*h.GeoScore, 0)) {
		// JSON has neither NaN nor infinity. The installed view maps them to NULL, but a handwritten view may not.
		h.GeoScore = nil
	}
	var buf bytes.Buffer
	// The text goes into JSON, not into HTML: escaping <, > and & would only make it harder to read.
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(h)           // no field of head can fail to encode
	buf.Truncate(buf.Len() - 2) // the closing brace and the line break
	buf.WriteString(a.Fields)
	if a.Status == "failed" && a.Error != nil {
		buf.WriteString(`,"error":`)
		_ = enc.Encode(*a.Error)
		buf.Truncate(buf.Len() - 1)
	}
	buf.WriteByte('}')
	return buf.Bytes()
}

// fingerprint returns the name of a state: 16 hex digits, the same on every instance for the same JSON.
func fingerprint(jsonText []byte) string {
	sum := sha256.Sum256(jsonText)
	return hex.EncodeToString(sum[:8])
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
