package server

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// origin matches an origin as browsers send it (RFC 6454, section 6.2). Apps and extensions have schemes of their own: capacitor://localhost,
// chrome-extension://ID.
var origin = regexp.MustCompile(`^[a-z][a-z0-9+.-]*://([a-z0-9_~.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?$`)

// checkOrigin reports what is wrong with an item of CORS_ALLOWED_ORIGINS. An origin that no browser sends would never match, and the
// operator would not know why. Upper case is allowed: browsers send lower case.
func checkOrigin(text string) error {
	lower := strings.ToLower(text)
	scheme, rest, _ := strings.Cut(lower, "://")
	wrong := ""
	u, err := url.Parse(lower)
	if err == nil && u.Port() != "" {
		_, err = strconv.ParseUint(u.Port(), 10, 16)
	}
	switch {
	case text == "*":
	case scheme == "ws", scheme == "wss":
		wrong = "a page's origin begins with http or https, also where it uses WebSockets"
	case lower == "null", scheme == "file":
		wrong = "pages from files, and all that are sandboxed, by anybody, have the origin null; serve the page over HTTP and give its origin"
	case strings.Contains(text, "*"): // rs/cors would take it for a pattern
		wrong = "there are no patterns; list each origin, or give * alone for all"
	case strings.ContainsAny(rest, "/?#"):
		wrong = "an origin ends after host and port, without a path or slash; want " + scheme + "://" + rest[:strings.IndexAny(rest, "/?#")]
	case scheme == "http" && strings.HasSuffix(rest, ":80") && rest != ":80", scheme == "https" && strings.HasSuffix(rest, ":443") && rest != ":443":
		wrong = "browsers leave the default port out; want " + lower[:strings.LastIndexByte(lower, ':')]
	case strings.ContainsFunc(text, func(r rune) bool { return r > 127 }):
		wrong = "want the host as browsers send it, in ASCII (xn--...)"
	case err != nil, !origin.MatchString(lower), u.Hostname() == "":
		wrong = "want SCHEME://HOST or SCHEME://HOST:PORT"
	}
	if wrong != "" {
		return fmt.Errorf("CORS_ALLOWED_ORIGINS: %q is no origin; give one like https://app.example.com or capacitor://localhost, or * alone: %s", text, wrong)
	}
	return nil
}
