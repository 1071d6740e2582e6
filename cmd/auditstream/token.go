package main

import (
	"errors"
	"fmt"
	"time"

	"auditstream/server"

	"github.com/golang-jwt/jwt/v5"
)

type tokenCmd struct {
	authFlags `embed:""`
	Sub       string        `placeholder:"USER" help:"The user: what audits.user_id holds."`
	Email     string        `placeholder:"ADDRESS" help:"The user's address: what audits.user_email holds, for rows without a user_id."`
	TTL       time.Duration `name:"ttl" default:"1h" help:"How long the token is valid."`
}

func (c *tokenCmd) Run(std streams) error {
	switch {
	case c.JWTSecret == "":
		return usageError{errors.New("JWT_SECRET is not set: it signs the token (tokens for JWT_JWKS_URL come from your identity provider)")}
	case len(c.JWTSecret) < server.MinSecret:
		return usageError{fmt.Errorf("JWT_SECRET: its %d bytes are not enough: an HS256 key has at least %d", len(c.JWTSecret), server.MinSecret)}
	case c.Sub == "" && c.Email == "":
		return usageError{errors.New("whose token? --sub USER or --email ADDRESS is required")}
	case c.TTL <= 0:
		return usageError{fmt.Errorf("--ttl=%v is not in the future; give a duration greater than 0, like 1h", c.TTL)}
	}
	token, err := signToken(c.JWTSecret, tokenClaims(c.Sub, c.Email, c.JWTIssuer, c.JWTAudience, c.TTL))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.out, token)
	return err
}

func tokenClaims(sub, email, issuer, audience string, ttl time.Duration) jwt.MapClaims {
	now := time.Now()
	claims := jwt.MapClaims{"iat": now.Unix(), "exp": now.Add(ttl).Unix()}
	for name, value := range map[string]string{"sub": sub, "email": email, "iss": issuer, "aud": audience} {
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
