package server

import (
	"encoding/json"
	"math"
	"regexp"
	"strings"
	"time"

	"auditstream/internal/store"

	"github.com/golang-jwt/jwt/v5"
)

// claims holds a token's claims by their exact names. Names are case-sensitive (RFC 7519, section 10.1.1), but encoding/json ignores the
// case of a struct's fields: where users may add claims, "SUB" would replace the issuer's "sub". Values are checked after the signature.
type claims struct {
	cfg *AuthConfig
	all map[string]json.RawMessage

	// Set by Validate, which runs last.
	viewer             store.Viewer
	expires, notBefore *jwt.NumericDate
}

func (c *claims) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, &c.all) }

// wrongClaim is the error of a claim whose value cannot be used. It does not show the value.
type wrongClaim struct{ claim, kind string }

func (e *wrongClaim) Error() string { return "the claim " + e.claim + " is " + e.kind }

// kind describes the type of a claim's value, "missing" for one that is absent or null.
func (c *claims) kind(name string) string {
	raw, ok := c.all[name]
	if !ok {
		return "missing"
	}
	switch raw[0] {
	case '"':
		return "a text"
	case '{':
		return "an object"
	case '[':
		return "a list"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "missing"
	}
	return "a number"
}

// text returns "" for a claim that is missing.
func (c *claims) text(name string) (text string, err error) {
	switch kind := c.kind(name); kind {
	case "missing":
		return "", nil
	case "a text":
		return text, json.Unmarshal(c.all[name], &text)
	default:
		return "", &wrongClaim{name, kind}
	}
}

// maxSeconds is how far from 1970 a date may be. A date in the far future overflows time.Time and becomes one in the past: a token with
// such an nbf would be valid.
const maxSeconds = 1e15

func (c *claims) date(name string) (*jwt.NumericDate, error) {
	if c.kind(name) == "missing" {
		return nil, nil
	}
	date := new(jwt.NumericDate)
	if err := date.UnmarshalJSON(c.all[name]); err != nil {
		return nil, &wrongClaim{name, "no number of seconds"}
	}
	var seconds json.Number // date was parsed, so this is a number
	_ = json.Unmarshal(c.all[name], &seconds)
	if s, err := seconds.Float64(); err != nil || math.Abs(s) > maxSeconds {
		return nil, &wrongClaim{name, "no number of seconds that a date can have"}
	}
	return date, nil
}

func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.date("exp") }
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error)       { return c.date("iat") }
func (c *claims) GetIssuer() (string, error)                   { return c.text("iss") }
func (c *claims) GetSubject() (string, error)                  { return c.text("sub") }

// GetNotBefore allows for an issuer's clock that is ahead; see [notBeforeSkew].
func (c *claims) GetNotBefore() (*jwt.NumericDate, error) {
	date, err := c.date("nbf")
	if date == nil || err != nil {
		return nil, err
	}
	return jwt.NewNumericDate(date.Add(-notBeforeSkew)), nil
}

// GetAudience returns the audience from the configured claim.
func (c *claims) GetAudience() (jwt.ClaimStrings, error) {
	name := c.cfg.audienceClaim()
	if name != "aud" {
		text, err := c.text(name)
		return jwt.ClaimStrings{text}, err
	}
	var list jwt.ClaimStrings
	if c.kind(name) == "missing" {
		return nil, nil
	}
	if err := list.UnmarshalJSON(c.all[name]); err != nil {
		return nil, &wrongClaim{name, "neither a text nor a list of texts"}
	}
	return list, nil
}

// Validate is called by the parser after it has checked the signature. It checks that iat is a date, but compares it with nothing:
// RFC 7519 does not ask for that, and clocks differ.
func (c *claims) Validate() (err error) {
	if _, err := c.GetIssuedAt(); err != nil {
		return err
	}
	if _, err := c.GetAudience(); err != nil { // the parser reads it only if JWT_AUDIENCE is set
		return err
	}
	if c.expires, err = c.date("exp"); err != nil {
		return err
	}
	if c.notBefore, err = c.date("nbf"); err != nil {
		return err
	}
	email, err := c.text("email")
	if err != nil {
		return err
	}
	if c.emailVerified() && strings.TrimSpace(email) != "" {
		c.viewer.Email = email
	}
	if c.viewer.Groups, err = c.groups(); err != nil {
		return err
	}
	c.viewer.Subject, err = c.user()
	return err
}

// groups returns the groups that the token names. As with users, a whole number counts as its digits.
func (c *claims) groups() (groups []string, err error) {
	name := c.cfg.GroupsClaim
	if name == "" || c.kind(name) == "missing" {
		return nil, nil
	}
	var list []json.RawMessage
	if json.Unmarshal(c.all[name], &list) != nil {
		list = []json.RawMessage{c.all[name]}
	}
	for _, one := range list {
		group := string(one)
		if !wholeNumber.Match(one) && (one[0] != '"' || json.Unmarshal(one, &group) != nil) {
			return nil, &wrongClaim{name, "neither a text or a whole number nor a list of these"}
		}
		groups = append(groups, group)
	}
	return groups, nil
}

// wholeNumber matches the one spelling of a whole number that may name a user or a group: 1000, but neither 1e3 nor 1000.0.
var wholeNumber = regexp.MustCompile(`^(?:0|-?[1-9][0-9]*)$`)

// user returns the user whom the token names, "" for nobody. Blanks name nobody, so that a row with a blank user_id has no owner. An e-mail
// address that is not verified names nobody, even if it is the claim that names the user.
func (c *claims) user() (string, error) {
	name := c.cfg.userClaim()
	switch kind := c.kind(name); {
	case name == "email":
		return c.viewer.Email, nil
	case kind == "a number" && c.cfg.UserClaim != "" && wholeNumber.Match(c.all[name]):
		return string(c.all[name]), nil
	case kind == "a number" && c.cfg.UserClaim != "":
		return "", &wrongClaim{name, "a number that is not written as a whole one"}
	}
	text, err := c.text(name)
	if strings.TrimSpace(text) == "" {
		return "", err
	}
	return text, err
}

// emailVerified reports whether the address may be used: if email_verified is missing, true, or the text "true", as some issuers write it.
func (c *claims) emailVerified() bool {
	if c.kind("email_verified") == "missing" {
		return true
	}
	value := strings.ToLower(string(c.all["email_verified"]))
	return value == `true` || value == `"true"`
}

// validFrom returns when a token with an nbf in the future becomes valid.
func (c *claims) validFrom() time.Time {
	date, err := c.GetNotBefore()
	if date == nil || err != nil {
		return time.Time{}
	}
	return date.Time
}
