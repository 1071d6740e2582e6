package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"auditstream/internal/server"
)

// secrets checks the tokens' configuration. It shows the lengths of keys, never the keys.
func (d *doctor) secrets(context.Context) []finding {
	auth := d.cmd.authFlags.config()
	if err := auth.Validate(); err != nil {
		return []finding{fail("", "tokens: %v", err)}
	}
	var findings []finding
	for _, warning := range auth.Warnings() {
		findings = append(findings, warn("", "tokens: %s", warning))
	}
	if auth.Secret != "" {
		previous := ""
		if auth.PreviousSecret != "" {
			previous = fmt.Sprintf(" and, for now, JWT_SECRET_PREVIOUS (%d bytes)", len(auth.PreviousSecret))
		}
		findings = append(findings, ok("tokens: HS256 with JWT_SECRET (%d bytes)%s; %s", len(auth.Secret), previous, describeTokens(auth)))
	}
	if auth.JWKSURL != "" {
		findings = append(findings, ok("tokens: RS256 and ES256 with the keys of JWT_JWKS_URL; %s", describeTokens(auth)))
	}
	return findings
}

// describeTokens says which claims tokens must have, and which claim names the user.
func describeTokens(auth server.AuthConfig) string {
	claim := cmp.Or(auth.AudienceClaim, "aud")
	must := "any iss and aud are accepted"
	switch {
	case auth.Issuer != "" && auth.Audience != "":
		must = fmt.Sprintf("iss must be %q and %s %q", auth.Issuer, claim, auth.Audience)
	case auth.Issuer != "":
		must = fmt.Sprintf("iss must be %q, any aud is accepted", auth.Issuer)
	case auth.Audience != "":
		must = fmt.Sprintf("%s must be %q, any iss is accepted", claim, auth.Audience)
	}
	if auth.UserClaim != "" {
		must += fmt.Sprintf("; the user is the claim %q", auth.UserClaim)
	}
	return must
}

// keySet fetches the JWKS as serve does, even if the secret is wrong.
func (d *doctor) keySet(ctx context.Context) []finding {
	auth := d.cmd.authFlags.config()
	if auth.JWKSURL == "" {
		return nil
	}
	auth.Secret, auth.PreviousSecret = "", ""
	if auth.Validate() != nil {
		return nil // the check secrets has reported it; a forbidden address is not requested
	}
	start := time.Now()
	set, err := server.FetchKeySet(ctx, auth.JWKSURL)
	if err != nil {
		return []finding{fail("Without it no RS256 or ES256 token is accepted: check the address, and that this machine reaches it. An RSA key, or an EC key on P-256, is needed, for signatures.",
			"JWT_JWKS_URL: %v", err)}
	}
	all := set.Len() + len(set.LeftOut)
	findings := []finding{ok("JWT_JWKS_URL: %d of %d keys can verify RS256 or ES256; fetched in %v", set.Len(), all, roundDuration(time.Since(start)))}
	for _, key := range set.Private {
		findings = append(findings, warn("Have the issuer replace that key, and publish the public half alone.", "JWT_JWKS_URL: the private half of a key is published, with which anybody can make tokens: %s", key))
	}
	for _, key := range set.Odd[:min(len(set.Odd), maxKeysShown)] {
		findings = append(findings, warn("", "JWT_JWKS_URL: a key is unusual, and used: %s", key))
	}
	for i, key := range set.LeftOut {
		if i == maxKeysShown {
			findings = append(findings, warn("", "JWT_JWKS_URL: %d more keys are left out", len(set.LeftOut)-i))
			break
		}
		findings = append(findings, warn("Tokens that it signed are refused; when it signs none, nothing is to be done.", "JWT_JWKS_URL: a key is left out: %s", key))
	}
	return findings
}

// maxKeysShown is how many of the keys that are left out doctor names.
const maxKeysShown = 10
