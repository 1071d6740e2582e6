package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"auditstream/internal/server"

	"github.com/golang-jwt/jwt/v5"
)

type tokenCmd struct {
	authFlags `embed:""`
	Sub       string        `placeholder:"USER" help:"The user: what audits.user_id holds. It goes into the claim of JWT_USER_CLAIM."`
	Email     string        `placeholder:"ADDRESS" help:"The user's address: what audits.user_email holds, for rows without a user_id."`
	Claim     []string      `placeholder:"NAME=VALUE" sep:"none" help:"Any claim, also more than one: a number, true, false, a list or an object as in JSON, all else as a text."`
	TTL       time.Duration `name:"ttl" default:"1h" help:"How long the token is valid."`
}

func (c *tokenCmd) Run(std streams) error {
	auth := c.config()
	claims, err := c.claims(auth)
	switch {
	case c.JWTSecret == "":
		return usageError{errors.New("JWT_SECRET is not set: it signs the token (tokens for JWT_JWKS_URL come from your identity provider)")}
	case len(c.JWTSecret) < server.MinSecret:
		return usageError{fmt.Errorf("JWT_SECRET: its %d bytes are not enough: an HS256 key has at least %d", len(c.JWTSecret), server.MinSecret)}
	case err != nil:
		return usageError{err}
	case auth.Validate() != nil:
		return usageError{auth.Validate()}
	case c.Email == "" && claims[cmp.Or(auth.UserClaim, "sub")] == nil:
		return usageError{errors.New("whose token? --sub USER or --email ADDRESS is required")}
	case c.TTL <= 0:
		return usageError{fmt.Errorf("--ttl=%v is not in the future; give a duration greater than 0, like 1h", c.TTL)}
	}
	token, err := signToken(c.JWTSecret, claims)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.out, token)
	return err
}

// claims returns the claims that serve requires with the same settings, and those of --claim.
func (c *tokenCmd) claims(auth server.AuthConfig) (jwt.MapClaims, error) {
	claims := tokenClaims(c.Sub, c.Email, auth, c.TTL)
	for _, claim := range c.Claim {
		name, value, found := strings.Cut(claim, "=")
		if !found || name == "" {
			return nil, fmt.Errorf("invalid --claim %q: want NAME=VALUE", claim)
		}
		if json.Valid([]byte(value)) {
			claims[name] = json.RawMessage(value) // not decoded, because a large number would lose digits
		} else {
			claims[name] = value
		}
	}
	return claims, nil
}

func tokenClaims(sub, email string, auth server.AuthConfig, ttl time.Duration) jwt.MapClaims {
	now := time.Now()
	if auth.UserClaim == "email" {
		sub = cmp.Or(sub, email)
	}
	claims := jwt.MapClaims{"iat": now.Unix(), "exp": now.Add(ttl).Unix()}
	for name, value := range map[string]string{
		"email": email, "iss": auth.Issuer, cmp.Or(auth.AudienceClaim, "aud"): auth.Audience, cmp.Or(auth.UserClaim, "sub"): sub,
	} {
		if value != "" {
			claims[name] = value
		}
	}
	return claims
}

func signToken(secret string, claims jwt.Claims) (string, error) {
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return token, nil
}
