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

// Audit is the state of one row of a feed, the first of which has audits, as viewers see it.
type Audit struct {
	// Feed is the row's; nil: [Audits].
	Feed *Feed
	// ID is the audit's key in the application's table.
	ID Key
	// Status is pending, running, completed, failed, or whatever else the application stores, in lower case.
	Status string
	// Progress is a percentage, 0 to 100.
	Progress int
	// Message is the text for people. Like the fields below it is left out while the column is NULL or missing.
	Message *string
	// GeoScore is the audit's result.
	GeoScore *float64
	// TotalPages is the number of pages analysed.
	TotalPages *int
	// Fields are what else the operator wants to be shown: members of a JSON object, with a comma before each.
	Fields string
	// Error says what went wrong. Viewers see it only when the status is failed.
	Error *string

	// UserID and UserEmail say who owns the audit, GroupID whose members see it, too; they are never sent.
	UserID, UserEmail, GroupID *string
}

// Terminal reports whether the audit has ended: no further change is expected and streams close.
func (a Audit) Terminal() bool { return a.Feed.ends(a.Status) }

// Viewer is the authenticated person who asks, as the token names them.
type Viewer struct {
	// Subject is the claim that names the token's user, sub unless configured otherwise.
	Subject string
	// Email is the token's email claim, empty unless it may be relied on (email_verified is not false).
	Email string
	// Groups are those that the token names.
	Groups []string
}

// OwnedBy reports whether v may see the audit: its user_id is v's subject, or, where the row has no user_id, its
// user_email is v's e-mail address without regard to case; or its group_id is one of v's groups; or its feed is public. A row with
// none of these belongs to nobody. A blank text identifies nobody either, so that an empty claim can never match an empty column.
func (a Audit) OwnedBy(v Viewer) bool {
	return slices.ContainsFunc(a.Owners(), v.is)
}

// foldEmail maps to lower case without ever mapping a letter outside ASCII to one inside it. Unicode's folding makes
// U+212A (Kelvin sign) a "k" and U+017F (long s) an "s": two mailboxes would be one owner.
func foldEmail(s string) string {
	return strings.Map(func(r rune) rune {
		if l := unicode.ToLower(r); r < unicode.MaxASCII || l > unicode.MaxASCII {
			return l
		}
		return r
	}, s)
}

// head is what the JSON begins with, in this order. One of the ids is there.
type head struct {
	AuditID    json.RawMessage `json:"audit_id,omitempty"`
	ID         json.RawMessage `json:"id,omitempty"`
	Status     string          `json:"status"`
	Progress   int             `json:"progress"`
	Message    *string         `json:"message,omitempty"`
	GeoScore   *float64        `json:"geo_score,omitempty"`
	TotalPages *int            `json:"total_pages,omitempty"`
}

// JSON returns the audit as the API's JSON object, without a trailing newline. It is one line: JSON escapes line breaks.
func (a Audit) JSON() []byte {
	h := head{Status: a.Status, Progress: a.Progress, Message: a.Message, GeoScore: a.GeoScore, TotalPages: a.TotalPages}
	if id := cmp.Or(a.Feed, Audits).Key.json(a.ID); a.Feed.isDefault() {
		h.AuditID = id
	} else {
		h.ID = id
	}
	if h.GeoScore != nil && (math.IsNaN(*h.GeoScore) || math.IsInf(*h.GeoScore, 0)) {
		// The view maps these to NULL, but one written by hand may not. JSON has none of them.
		h.GeoScore = nil
	}
	var buf bytes.Buffer
	// The text goes into a JSON document, not into HTML; escaping <, > and & would only make it longer to read.
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(h)           // nothing in it can fail to encode
	buf.Truncate(buf.Len() - 2) // the brace and a line break
	buf.WriteString(a.Fields)
	if a.Status == "failed" && a.Error != nil {
		buf.WriteString(`,"error":`)
		_ = enc.Encode(*a.Error)
		buf.Truncate(buf.Len() - 1)
	}
	buf.WriteByte('}')
	return buf.Bytes()
}

// fingerprint names a state: 16 hex digits that are the same wherever and whenever the same JSON is computed.
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
