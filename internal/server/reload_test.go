package server

import (
	"strings"
	"testing"

	"auditstream/internal/testkit"

	"github.com/golang-jwt/jwt/v5"
)

// Anybody can send tokens with unknown key ids. As many as may wait for a fetch made a reload fail when it had taken over the new
// secret already, and withdrawn keys stayed in use.
func TestReloadDoesNotWaitBehindStrangers(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	s := newTestServer(t, hubFunc(unreachable), func(c *Config) { c.Auth = i.config() })
	withdrawn := i.token(t, "one")
	if _, err := s.verifier.verify(t.Context(), withdrawn); err != nil {
		t.Fatal(err)
	}
	i.rotate(t, "two")
	for range jwksMaxWaiting {
		s.verifier.keys.waiting <- struct{}{}
	}

	if err := s.Reload(t.Context(), "short", ""); err == nil {
		t.Error("a secret of 5 bytes was taken over")
	}
	if _, err := s.verifier.verify(t.Context(), withdrawn); err != nil {
		t.Errorf("after a reload that was refused: %v", err)
	}
	next := strings.Repeat("n", MinSecret)
	testkit.NoError(t, s.Reload(t.Context(), next, ""))
	if _, err := s.verifier.verify(t.Context(), signed(t, jwt.SigningMethodHS256, []byte(next), claimsOf("alice"), nil)); err != nil {
		t.Errorf("a token of the new secret: %v", err)
	}
	if _, err := s.verifier.verify(t.Context(), i.token(t, "two")); err != nil {
		t.Errorf("a token of the new key: %v", err)
	}
	if _, err := s.verifier.verify(t.Context(), withdrawn); err == nil {
		t.Error("a token of the withdrawn key is accepted")
	}
}
