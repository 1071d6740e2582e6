package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"auditstream/server"

	"github.com/MicahParks/jwkset"
)

// secrets checks the tokens' configuration. It tells lengths, never keys.
func (d *doctor) secrets(context.Context) []finding {
	auth := d.cmd.authFlags.config()
	if err := auth.Validate(); err != nil {
		return []finding{fail("", "tokens: %v", err)}
	}
	var findings []finding
	if auth.Secret != "" {
		previous := ""
		if auth.PreviousSecret != "" {
			previous = fmt.Sprintf(" and, for now, JWT_SECRET_PREVIOUS (%d bytes)", len(auth.PreviousSecret))
		}
		findings = append(findings, ok("tokens: HS256 with JWT_SECRET (%d bytes)%s; %s", len(auth.Secret), previous, demands(auth)))
	}
	if auth.JWKSURL != "" {
		findings = append(findings, ok("tokens: RS256 and ES256 with the keys of JWT_JWKS_URL; %s", demands(auth)))
	}
	return findings
}

func demands(auth server.AuthConfig) string {
	switch {
	case auth.Issuer != "" && auth.Audience != "":
		return fmt.Sprintf("iss must be %q and aud %q", auth.Issuer, auth.Audience)
	case auth.Issuer != "":
		return fmt.Sprintf("iss must be %q, any aud is accepted", auth.Issuer)
	case auth.Audience != "":
		return fmt.Sprintf("aud must be %q, any iss is accepted", auth.Audience)
	}
	return "any iss and aud are accepted"
}

// keySet fetches the JWKS as serve does, whatever is wrong with the secret.
func (d *doctor) keySet(ctx context.Context) []finding {
	auth := d.cmd.authFlags.config()
	if auth.JWKSURL == "" {
		return nil
	}
	auth.Secret, auth.PreviousSecret = "", ""
	if auth.Validate() != nil {
		return nil // said by secrets; an address that is not allowed is not asked
	}
	start := time.Now()
	usable, all, err := fetchKeySet(ctx, auth.JWKSURL)
	switch {
	case err != nil:
		return []finding{fail("Without it no RS256 or ES256 token is accepted: check the address, and that this machine reaches it.",
			"JWT_JWKS_URL: %v", err)}
	case usable == 0:
		return []finding{fail("An RSA key or an EC key on P-256 is needed, for signatures.",
			"JWT_JWKS_URL: none of its %d keys can verify RS256 or ES256", all)}
	}
	return []finding{ok("JWT_JWKS_URL: %d of %d keys can verify RS256 or ES256; fetched in %v", usable, all, brief(time.Since(start)))}
}

func fetchKeySet(ctx context.Context, address string) (usable, all int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, 0, errors.New("not an address")
	}
	resp, err := server.JWKSClient().Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // without the address, which may hold a key
		}
		return 0, 0, fmt.Errorf("fetch from %s: %w", req.URL.Host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, 0, fmt.Errorf("%s answers %s", req.URL.Host, resp.Status)
	}
	var set jwkset.JWKSMarshal
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil {
		return 0, 0, fmt.Errorf("%s answers something else than a key set: %w", req.URL.Host, err)
	}
	for _, key := range set.Keys {
		jwk, err := jwkset.NewJWKFromMarshal(key, jwkset.JWKMarshalOptions{Private: true}, jwkset.JWKValidateOptions{})
		switch {
		case errors.Is(err, jwkset.ErrUnsupportedKey):
		case err != nil:
			return 0, 0, fmt.Errorf("the key %q of the set is broken, so serve takes none of them: %w", key.KID, err)
		case server.CanVerify(jwk):
			usable++
		}
	}
	return usable, len(set.Keys), nil
}
