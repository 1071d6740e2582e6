package server

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// maxToken bounds a token before anything parses it, in bytes.
const maxToken = 8 << 10

// token finds the credentials of a request after RFC 6750: the Authorization header, or else the configured cookie on a
// same-origin request. A token in the URL is refused, whatever else the request carries: URLs end up in logs, histories
// and Referer headers (RFC 9700, section 4.3.2).
func (s *Server) token(r *http.Request) (string, error) {
	if tokenInURL(r.URL) {
		return "", errTokenInURL
	}
	switch headers := r.Header["Authorization"]; len(headers) {
	case 0:
	case 1:
		token, err := bearer(headers[0])
		if err != errMissingToken {
			return token, err
		}
		// Another scheme is a proxy's business, as Basic often is; the cookie still counts.
	default:
		return "", errMalformedAuth
	}
	if s.cfg.AuthCookie != "" && sameOrigin(r) {
		if c, err := r.Cookie(s.cfg.AuthCookie); err == nil && c.Value != "" {
			return checkToken(c.Value)
		}
	}
	return "", errMissingToken
}

// b64token is RFC 6750's syntax of a token.
var b64token = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// bearer parses the value of an Authorization header. Another scheme is not malformed: it carries no bearer token
// (RFC 6750, section 3.1: "attempted using an unsupported authentication method").
func bearer(value string) (string, error) {
	scheme, token, _ := strings.Cut(value, " ")
	if scheme == "" {
		return "", errMalformedAuth
	}
	if !strings.EqualFold(scheme, "Bearer") {
		return "", errMissingToken
	}
	token = strings.Trim(token, " ")
	if !b64token.MatchString(token) {
		return "", errMalformedAuth
	}
	return checkToken(token)
}

func checkToken(token string) (string, error) {
	if len(token) > maxToken {
		return "", errInvalidToken
	}
	return token, nil
}

// jwtLike matches a compact JWS: its header begins with {" in base64url.
var jwtLike = regexp.MustCompile(`^(?i:bearer )?eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*$`)

func tokenInURL(u *url.URL) bool {
	if u.RawQuery == "" {
		return false
	}
	for name, values := range u.Query() {
		switch strings.ToLower(name) {
		case "access_token", "token", "jwt", "id_token", "authorization", "bearer":
			return true
		}
		if jwtLike.MatchString(name) {
			return true
		}
		for _, v := range values {
			if jwtLike.MatchString(v) {
				return true
			}
		}
	}
	return false
}

// sameOrigin reports whether a browser sent the request from a page of this very origin. Browsers attach cookies to
// requests from foreign pages too.
func sameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	return strings.EqualFold(u.Host, r.Host)
}
