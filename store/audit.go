package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"unicode"
)

// Audit is the state of one audit as viewers see it. The JSON form is the API's: these fields, in this order.
type Audit struct {
	// ID is the audit's key in the application's table.
	ID Key `json:"audit_id"`
	// Status is pending, running, completed, failed, or whatever else the application stores, in lower case.
	Status string `json:"status"`
	// Progress is a percentage, 0 to 100.
	Progress int `json:"progress"`
	// Message is the text for people. Like the fields below it is left out while the column is NULL or missing.
	Message *string `json:"message,omitempty"`
	// GeoScore is the audit's result.
	GeoScore *float64 `json:"geo_score,omitempty"`
	// TotalPages is the number of pages analysed.
	TotalPages *int `json:"total_pages,omitempty"`
	// Error says what went wrong. Viewers see it only when the status is failed.
	Error *string `json:"error,omitempty"`

	// UserID and UserEmail say who owns the audit; they are never sent.
	UserID    *string `json:"-"`
	UserEmail *string `json:"-"`
}

// Terminal reports whether the audit has ended: no further change is expected and streams close.
func (a Audit) Terminal() bool {
	return a.Status == "completed" || a.Status == "failed"
}

// Viewer is the authenticated person who asks, as the token names them.
type Viewer struct {
	// Subject is the claim that names the token's user, sub unless configured otherwise.
	Subject string
	// Email is the token's email claim, empty unless it may be relied on (email_verified is not false).
	Email string
}

// OwnedBy reports whether v may see the audit: its user_id is v's subject, or, where the row has no user_id, its
// user_email is v's e-mail address without regard to case. A row with neither belongs to nobody. A blank text
// identifies nobody either, so that an empty claim can never match an empty column.
func (a Audit) OwnedBy(v Viewer) bool {
	owner := a.Owner()
	return owner != Owner{} && slices.Contains(v.Owners(), owner)
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

// JSON returns the audit as the API's JSON object, without a trailing newline. It is one line: JSON escapes line breaks.
func (a Audit) JSON() []byte {
	if a.Status != "failed" {
		a.Error = nil
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	// The text goes into a JSON document, not into HTML; escaping <, > and & would only make it longer to read.
	enc.SetEscapeHTML(false)
	if err := enc.Encode(a); err != nil {
		// The view maps NaN and infinities to NULL, but a view written by hand may not. A score that JSON cannot
		// express is left out rather than ending the stream.
		a.GeoScore = nil
		buf.Reset()
		_ = enc.Encode(a) // nothing else in an Audit can fail to encode
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
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
