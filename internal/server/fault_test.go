package server

import (
	"encoding/base64"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/testkit"

	"github.com/golang-jwt/jwt/v5"
)

// logged returns a verifier, and its log at the level info.
func logged(t testing.TB, cfg AuthConfig) (*verifier, *testkit.Log) {
	t.Helper()
	log := new(testkit.Log)
	v, err := newVerifier(t.Context(), cfg, log.Logger())
	testkit.NoError(t, err)
	return v, log
}

func verifierOf(t testing.TB, cfg AuthConfig) *verifier {
	t.Helper()
	v, _ := logged(t, cfg)
	return v
}

// raw returns a token with exactly these claims in JSON.
func raw(t testing.TB, claims string) string {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	signature, err := jwt.SigningMethodHS256.Sign(text, []byte(testSecret))
	testkit.NoError(t, err)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// expiring returns claims with an exp in the future.
func expiring(claims string) string {
	return fmt.Sprintf(`{"exp":%d,%s}`, time.Now().Add(time.Hour).Unix(), claims)
}

// The log at its usual level did not say why a token was refused.
func TestU15EachReasonIsLoggedWithWhatToSet(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	cfg := i.config()
	now := time.Now()
	good := claimsOf("user-of-nobodys-business")
	good["email"] = "mail@example.com"
	set := func(name string, value any) string {
		claims := maps.Clone(good)
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
		return sign(t, claims)
	}
	rs := func(method jwt.SigningMethod, kid any) string {
		return signed(t, method, i.key.Load(), good, map[string]any{"kid": kid})
	}
	none := signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good, nil)
	for name, tc := range map[string]struct {
		token string
		want  []string
	}{
		"another aud":        {set("aud", "billing"), []string{"level=WARN", "not for JWT_AUDIENCE", "claim=aud want=auditstream", "billing"}},
		"many auds":          {set("aud", []string{"a", "b"}), []string{"not for JWT_AUDIENCE", "a b"}},
		"no aud":             {set("aud", nil), []string{"not for JWT_AUDIENCE", "JWT_AUDIENCE_CLAIM"}},
		"an empty aud":       {set("aud", ""), []string{"not for JWT_AUDIENCE"}},
		"aud a number":       {set("aud", 7), []string{"claim=aud", "neither a text nor a list"}},
		"another iss":        {set("iss", "https://id.example/"), []string{"not JWT_ISSUER", "want=https://id.example", "https://id.example/"}},
		"no iss":             {set("iss", nil), []string{"not JWT_ISSUER"}},
		"iss an object":      {set("iss", map[string]any{"a": 1}), []string{"claim=iss", "an object"}},
		"an iss with breaks": {set("iss", "x\nlevel=ERROR\u202e\x1b[31m"+strings.Repeat("y", 4000)), []string{"not JWT_ISSUER", `\\nlevel=ERROR\\u202e\\x1b`}},
		"sub a number":       {set("sub", 42), []string{"level=WARN", "JWT_USER_CLAIM", "claim=sub", "a number"}},
		"sub a list":         {set("sub", []any{"a"}), []string{"JWT_USER_CLAIM", "claim=sub", "a list"}},
		"sub a boolean":      {set("sub", true), []string{"claim=sub", "a boolean"}},
		"email a list":       {set("email", []any{"a"}), []string{"claim=email", "a list"}},
		"expired":            {set("exp", now.Add(-time.Second).Unix()), []string{"level=INFO", "has expired"}},
		"no exp":             {set("exp", nil), []string{"has no exp"}},
		"exp a text":         {set("exp", "soon"), []string{"claim=exp"}},
		"not yet":            {set("nbf", now.Add(time.Hour).Unix()), []string{"nbf", "clock"}},
		"nbf a text":         {set("nbf", "soon"), []string{"claim=nbf"}},
		"iat a text":         {set("iat", "soon"), []string{"claim=iat"}},
		"another signature":  {set("sub", "x")[:len(set("sub", "x"))-8] + "AAAAAAAA", []string{"signature is refused", "JWT_SECRET"}},
		"RS512":              {rs(jwt.SigningMethodRS512, "one"), []string{"alg is not configured", "alg=RS512"}},
		"HS512":              {signed(t, jwt.SigningMethodHS512, []byte(testSecret), good, nil), []string{"alg is not configured", "alg=HS512"}},
		"none":               {none, []string{"alg is not configured", "alg=none"}},
		"an alg of nobody's": {"eyJhbGciOiJ4XG55In0." + strings.Split(none, ".")[1] + ".AAAA", []string{"alg is not configured"}},
		"an unknown kid":     {rs(jwt.SigningMethodRS256, "unknown-kid"), []string{"no key of its kid", "JWT_JWKS_URL"}},
		"a kid that is none": {rs(jwt.SigningMethodRS256, 7), []string{"kid is no text"}},
		"no JWT":             {"abc", []string{"level=INFO", "is no JWT"}},
		"nothing in it":      {"..", []string{"is no JWT"}},
		"encrypted":          {"eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..AAAA.AAAA.AAAA", []string{"encrypted (JWE)", "docs/tokens-and-issuers.md"}},
		"a crit header":      {"eyJhbGciOiJIUzI1NiIsImNyaXQiOlsieCJdfQ." + strings.Split(none, ".")[1] + ".AAAA", []string{"crit"}},
	} {
		t.Run(name, func(t *testing.T) {
			v, log := logged(t, cfg)
			for range 3 {
				v.verify(t.Context(), tc.token)
				if _, err := v.verify(t.Context(), tc.token); answerTo(err) != errInvalidToken {
					t.Fatalf("got %v, want errInvalidToken", err)
				}
			}
			if log.Lines() != 1 || len(log.String()) > 800 {
				t.Errorf("want one line of 800 bytes at most:\n%s", log)
			}
			if !log.Has(tc.want...) {
				t.Errorf("the log lacks one of %q: %s", tc.want, log)
			}
			for _, secret := range []string{tc.token, "user-of-nobodys-business", "mail@example.com", "unknown-kid", testSecret} {
				if log.Has(secret) && len(secret) > 3 {
					t.Errorf("the log has %q: %s", secret, log)
				}
			}
		})
	}
}

// Anybody can send bad tokens, so they must not fill the log: each reason is one line a minute, which counts the others.
func TestU15ReasonsAreLoggedOnceAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v, log := logged(t, AuthConfig{Secret: testSecret, Issuer: "https://id.example"})
		for range 3 {
			for range 1000 {
				_, _ = v.verify(t.Context(), "abc")
				_, _ = v.verify(t.Context(), raw(t, expiring(`"iss":"x"`)))
			}
			time.Sleep(faultInterval)
		}
		if log.Lines() != 6 || log.Count("not_logged=999") != 4 {
			t.Errorf("%d lines, want 6, of which 4 count 999 others:\n%s", log.Lines(), log)
		}
	})
}

// Requests whose token is not even parsed, and tokens that name nobody, are logged, too.
func TestU15RefusalsBeforeAndAfterTheTokenAreLogged(t *testing.T) {
	t.Parallel()
	for want, headers := range map[string][]string{
		"in the URL":        {"Authorization", "Bearer " + aliceToken(t)},
		"malformed":         {"Authorization", "Bearer a b"},
		"longer than":       {"Authorization", "Bearer " + strings.Repeat("a", maxToken+1)},
		"names nobody":      {"Authorization", "Bearer " + raw(t, expiring(`"user_id":3`))},
		"claim=sub is=miss": {"Authorization", "Bearer " + raw(t, expiring(`"uid":"x"`))},
	} {
		log := new(testkit.Log)
		path := streamPath
		if want == "in the URL" {
			path += "?access_token=geheim"
		}
		s := newTestServer(t, hubFunc(unreachable), func(c *Config) { c.Logger = log.Logger() })
		for range 2 {
			s.cfg.Hub, _ = one(running(1))
			serve(s, get(t, path, headers...))
		}
		if log.Lines() != 1 || !log.Has(want) || log.Has("geheim") {
			t.Errorf("want one line with %q:\n%s", want, log)
		}
	}
}
