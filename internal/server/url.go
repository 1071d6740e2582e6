package server

import (
	"net"
	"net/url"
	"strings"
)

// withoutPassword returns a URL as it may be shown. In a misspelled URL the password may be anywhere before the last @.
func withoutPassword(text string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "(not shown, it does not parse)"
	case u.User != nil:
		return u.Redacted()
	case strings.Contains(text, "@"):
		return "(not shown, it may hold a password)"
	}
	return text
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
