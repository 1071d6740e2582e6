package server

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// logged is a verifier, and its log at the level info.
func logged(t testing.TB, cfg AuthConfig) (*verifier, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	v, err := newVerifier(t.Context(), cfg, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return v, log
}

// raw is a token with exactly these claims in JSON.
func raw(t testing.TB, claims string) string {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	signature, err := jwt.SigningMethodHS256.Sign(text, []byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// expiring are claims with an exp in the future.
func expiring(claims string) string {
	return fmt.Sprintf(`{"exp":%d,%s}`, time.Now().Add(time.Hour).Unix(), claims)
}

// A refused token left nothing in the log at its usual level, whatever was wrong.
func TestU15EachReasonIsLoggedWithWhatToSet(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	cfg := i.config()
	now := time.Now()
	good := jwt.MapClaims{"sub": "user-of-nobodys-business", "email": "mail@example.com", "iss": "https://id.example", "aud": "auditstream", "exp": now.Add(time.Hour).Unix()}
	set := func(name string, value any) string {
		claims := jwt.MapClaims{}
		for k, v := range good {
			claims[k] = v
		}
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
		return sign(t, claims)
	}
	rs := func(method jwt.SigningMethod, kid any) string {
		token := jwt.NewWithClaims(method, good)
		token.Header["kid"] = kid
		var key any = i.key.Load()
		if method == jwt.SigningMethodHS512 {
			key = []byte(testSecret)
		}
		signed, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, good).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
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
		"HS512":              {rs(jwt.SigningMethodHS512, "one"), []string{"alg is not configured", "alg=HS512"}},
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
			got := log.String()
			if strings.Count(got, "\n") != 1 {
				t.Errorf("want one line:\n%s", got)
			}
			for _, want := range tc.want {
				if !strings.Contains(got, want) {
					t.Errorf("the log lacks %q: %s", want, got)
				}
			}
			for _, secret := range []string{tc.token, "user-of-nobodys-business", "mail@example.com", "unknown-kid", testSecret} {
				if strings.Contains(got, secret) && len(secret) > 3 {
					t.Errorf("the log has %q: %s", secret, got)
				}
			}
			if len(got) > 800 {
				t.Errorf("a line of %d bytes", len(got))
			}
		})
	}
}

// What strangers send must not fill the log: each reason is a line a minute, which counts the others.
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
		if got := strings.Count(log.String(), "\n"); got != 6 || strings.Count(log.String(), "not_logged=999") != 4 {
			t.Errorf("%d lines, want 6, of which 4 count 999 others:\n%s", got, log.String())
		}
	})
}

// Requests whose token is not even looked at, and tokens of nobody, say so as well.
func TestU15RefusalsBeforeAndAfterTheTokenAreLogged(t *testing.T) {
	t.Parallel()
	for want, headers := range map[string][]string{
		"in the URL":        {"Authorization", "Bearer " + aliceToken(t)},
		"malformed":         {"Authorization", "Bearer a b"},
		"longer than":       {"Authorization", "Bearer " + strings.Repeat("a", maxToken+1)},
		"names nobody":      {"Authorization", "Bearer " + raw(t, expiring(`"user_id":3`))},
		"claim=sub is=miss": {"Authorization", "Bearer " + raw(t, expiring(`"uid":"x"`))},
	} {
		var log bytes.Buffer
		hub, _ := one(running(1))
		path := streamPath
		if want == "in the URL" {
			path += "?access_token=geheim"
		}
		s := newTestServer(t, hub, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		serve(s, get(t, path, headers...)) // the second of a good token would need another hub
		if hub, _ := one(running(1)); hub != nil {
			s.cfg.Hub = hub
		}
		serve(s, get(t, path, headers...))
		if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), want) || strings.Contains(log.String(), "geheim") {
			t.Errorf("want one line with %q:\n%s", want, log.String())
		}
	}
}

// Issuers whose tokens have no aud could not be configured.
func TestU14AudienceInAnotherClaim(t *testing.T) {
	t.Parallel()
	for _, claim := range []string{"client_id", "azp"} {
		i := newIssuer(t)
		cfg := i.config()
		cfg.AudienceClaim = claim
		v, log := logged(t, cfg)
		for claims, want := range map[string]bool{
			`"%s":"auditstream"`:                  true,
			`"%s":"auditstream","aud":"another"`:  true, // that claim alone counts
			`"%s":"other","aud":"auditstream"`:    false,
			`"aud":"auditstream"`:                 false,
			`"aud":"auditstream","%s":null`:       false,
			`"%s":"Auditstream"`:                  false,
			`"%s":"auditstream "`:                 false,
			`"%s":"auditstream/"`:                 false,
			`"%s":""`:                             false,
			`"%s":["auditstream"]`:                false,
			`"%s":{"auditstream":1}`:              false,
			`"%s":true`:                           false,
			`"%s":0`:                              false,
			`"%s":"other","%[1]s":"auditstream "`: false,
			`"A%s":"auditstream"`:                 false,
		} {
			if strings.Contains(claims, "%") {
				claims = fmt.Sprintf(strings.Replace(claims, "%s", "%[1]s", 1), claim)
			}
			_, err := v.verify(t.Context(), raw(t, expiring(`"sub":"alice","iss":"https://id.example",`+claims)))
			if (err == nil) != want {
				t.Errorf("%s: %v, want it accepted: %v", claims, err, want)
			}
		}
		if !strings.Contains(log.String(), "claim="+claim) {
			t.Errorf("the log does not name %s:\n%s", claim, log.String())
		}
	}
}

// Owners whose claim is not sub were nobody.
func TestU16UserInAnotherClaim(t *testing.T) {
	t.Parallel()
	const refused, nobody = "refused", ""
	for _, tc := range []struct{ claim, claims, want string }{
		{"user_id", `"user_id":3`, "3"}, {"user_id", `"user_id":0`, "0"}, {"user_id", `"user_id":-7`, "-7"}, {"user_id", `"user_id":"3"`, "3"},
		{"user_id", `"user_id":9007199254740993`, "9007199254740993"}, {"user_id", `"user_id":123456789012345678901234567890`, "123456789012345678901234567890"},
		{"user_id", `"user_id": 5 `, "5"}, {"user_id", `"sub":"alice","user_id":3`, "3"}, {"user_id", `"user_id":"a b"`, "a b"}, {"user_id", `"user_id":" a"`, " a"},
		{"user_id", `"user_id":1e3`, refused}, {"user_id", `"user_id":3.0`, refused}, {"user_id", `"user_id":3.5`, refused}, {"user_id", `"user_id":-0`, refused}, {"user_id", `"user_id":1E+21`, refused},
		{"user_id", `"user_id":true`, refused}, {"user_id", `"user_id":{"id":3}`, refused}, {"user_id", `"user_id":[3]`, refused}, {"user_id", `"user_id":["3"]`, refused},
		{"user_id", `"user_id":null`, nobody}, {"user_id", `"user_id":""`, nobody}, {"user_id", `"user_id":" "`, nobody}, {"user_id", `"user_id":"\t\u00a0\u3000\n"`, nobody},
		{"user_id", `"sub":"alice"`, nobody}, {"user_id", `"User_Id":3`, nobody}, {"user_id", `"user_ıd":3`, nobody}, {"user_id", `"user":{"id":3}`, nobody},
		{"https://example.com/uid", `"https://example.com/uid":"u1"`, "u1"}, {"user.id", `"user":{"id":"x"},"user.id":"y"`, "y"}, {"user.id", `"user":{"id":"x"}`, nobody},
		{"custom:uid", `"custom:uid":7`, "7"}, {"sub", `"sub":42`, "42"}, {"sub", `"sub":"42"`, "42"}, {"", `"sub":42`, refused}, {"", `"sub":"alice"`, "alice"},
		{"email", `"email":"a@b.c","email_verified":true`, "a@b.c"}, {"email", `"email":"a@b.c","email_verified":false`, nobody}, {"email", `"email":7`, refused},
		{"名前", `"名前":"x"`, "x"}, {"user_id", `"user_id":3,"user_id":4`, "4"},
	} {
		v, log := logged(t, AuthConfig{Secret: testSecret, UserClaim: tc.claim})
		who, err := v.verify(t.Context(), raw(t, expiring(tc.claims)))
		switch got := who.Subject; {
		case tc.want == refused && answerTo(err) != errInvalidToken:
			t.Errorf("%s: %s: %q, %v, want it refused", tc.claim, tc.claims, got, err)
		case tc.want != refused && (err != nil || got != tc.want):
			t.Errorf("%s: %s: %q, %v, want %q", tc.claim, tc.claims, got, err, tc.want)
		case (tc.want == refused || tc.want == nobody && who.Email == "") && !strings.Contains(log.String(), "JWT_USER_CLAIM") && tc.claim != "email":
			t.Errorf("%s: %s: the log does not say what to set: %s", tc.claim, tc.claims, log)
		}
	}
}

// Clocks differ: what is valid in a minute is valid, and what has ended has ended.
func TestU25LeewayOfAMinuteForNotBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v, _ := logged(t, AuthConfig{Secret: testSecret, MaxCached: 10})
		now := time.Now().Unix()
		token := func(name string, seconds int64) string {
			claims := jwt.MapClaims{"sub": "alice", "exp": now + 3600}
			claims[name] = now + seconds
			return sign(t, claims)
		}
		for _, tc := range []struct {
			claim   string
			seconds int64
			want    bool
		}{
			{"nbf", 30, true}, {"nbf", 60, true}, {"nbf", 61, false}, {"nbf", -5, true}, {"iat", 30, true}, {"iat", 60, true}, {"iat", 7200, true},
			{"exp", 1, true}, {"exp", 0, false}, {"exp", -1, false}, {"exp", -59, false},
		} {
			for range 2 { // the second may be remembered
				if _, err := v.verify(t.Context(), token(tc.claim, tc.seconds)); (err == nil) != tc.want {
					t.Errorf("%s in %d s: %v, want it accepted: %v", tc.claim, tc.seconds, err, tc.want)
				}
			}
		}
		late := token("nbf", 90)
		if _, err := v.verify(t.Context(), late); err == nil {
			t.Error("90 s ahead: accepted")
		}
		time.Sleep(30 * time.Second)
		if _, err := v.verify(t.Context(), late); err != nil {
			t.Errorf("half a minute later: %v", err)
		}
	})
}

// A client that is early is told when to come back; the answer is that to any invalid token.
func TestU25EarlyTokenIsToldWhenToComeBack(t *testing.T) {
	t.Parallel()
	for ahead, want := range map[time.Duration]bool{90 * time.Second: true, 50 * time.Minute: true, 48 * time.Hour: false, -time.Minute: false} {
		hub, _ := one(ended("completed"))
		token := sign(t, jwt.MapClaims{"sub": "alice", "nbf": time.Now().Add(ahead).Unix(), "exp": time.Now().Add(100 * time.Hour).Unix()})
		c := serve(newTestServer(t, hub, nil), get(t, streamPath, "Authorization", "Bearer "+token))
		var seconds int
		_, _ = fmt.Sscan(c.header.Get("Retry-After"), &seconds)
		if (c.status == 401) != (ahead > 0) || (seconds > 0) != want || want && time.Duration(seconds)*time.Second > ahead-notBeforeSkew+2*time.Second {
			t.Errorf("%v ahead: %d, Retry-After %q", ahead, c.status, c.header.Get("Retry-After"))
		}
		if ahead > 0 && (c.header.Get("WWW-Authenticate") != errInvalidToken.challenge || c.String() != `{"error":"Invalid authentication token"}`) {
			t.Errorf("%v ahead: %s %v", ahead, c.String(), c.header)
		}
	}
}

// A line break at the end of a key refused everybody, and nothing said so.
func TestU18SecretWithWhatCopyingLeaves(t *testing.T) {
	t.Parallel()
	for secret, want := range map[string]string{
		testSecret + "\n": "ends", testSecret + "\r\n": "ends", testSecret + " ": "ends", testSecret + "\t": "ends", testSecret + "\u00a0": "ends", testSecret + "\u200b": "ends", testSecret + "\x00": "ends",
		" " + testSecret: "begins", "\n" + testSecret: "begins", "\ufeff" + testSecret: "begins", strings.Repeat(" ", 40): "ends",
		`"` + testSecret + `"`: "quotes", `'` + testSecret + `'`: "quotes", "\u201c" + testSecret + "\u201d": "quotes", "`" + testSecret + "`": "quotes",
		testSecret + `\n`: "backslash", testSecret + `\r\n`: "backslash",
		testSecret: "", "a b" + testSecret: "", testSecret + "=": "", `x"` + testSecret + `"y`: "", testSecret + "\xff": "", `"` + testSecret: "",
	} {
		for name, cfg := range map[string]AuthConfig{"JWT_SECRET": {Secret: secret}, "JWT_SECRET_PREVIOUS": {Secret: strings.Repeat("k", 40), PreviousSecret: secret}} {
			v, log := logged(t, cfg)
			got := strings.Join(cfg.Warnings(), "")
			if (got == "") != (want == "") || !strings.Contains(got, want) || want != "" && !strings.HasPrefix(got, name+" ") {
				t.Errorf("%s %q: %q, want %q", name, secret, got, want)
			}
			if strings.Contains(got+log.String(), testSecret) || strings.Count(log.String(), "level=WARN") != len(cfg.Warnings()) {
				t.Errorf("%s %q: the log is %s", name, secret, log)
			}
			token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}).SignedString([]byte(secret))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.verify(t.Context(), token); err != nil {
				t.Errorf("%s %q is not used as it is: %v", name, secret, err)
			}
		}
	}
}

func TestClaimSettingsAreChecked(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]AuthConfig{
		`JWT_AUDIENCE_CLAIM: invalid claim "sub"; give aud, client_id or azp`: {Secret: testSecret, Audience: "a", AudienceClaim: "sub"},
		"JWT_AUDIENCE_CLAIM without JWT_AUDIENCE":                             {Secret: testSecret, AudienceClaim: "azp"},
		`JWT_USER_CLAIM: the claim "exp" names no user`:                       {Secret: testSecret, UserClaim: "exp"},
		`JWT_USER_CLAIM: the claim "iss" names no user`:                       {Secret: testSecret, UserClaim: "iss"},
		`JWT_USER_CLAIM: " sub" begins or ends with white space`:              {Secret: testSecret, UserClaim: " sub"},
		`JWT_USER_CLAIM: " " begins or ends`:                                  {Secret: testSecret, UserClaim: " "},
	} {
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Whatever the claims are: nobody is somebody by a claim that is no text and no whole number, or blank.
func FuzzUserClaim(f *testing.F) {
	for _, value := range []string{`"a"`, `3`, `1e3`, `" "`, `null`, `{"a":1}`, `[1]`, `true`, `-0`, `"\u0000"`, `"\ud800"`, `007`, `3,"user_id":4`} {
		f.Add(value, "user_id")
	}
	f.Fuzz(func(t *testing.T, value, claim string) {
		cfg := AuthConfig{Secret: testSecret, UserClaim: claim}
		if cfg.Validate() != nil || claim == "" || claim == "email" {
			return
		}
		name, err := json.Marshal(claim)
		if err != nil {
			t.Fatal(err)
		}
		v, err := newVerifier(t.Context(), cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf(`{"exp":%s,%s:%s}`, farFuture, name, value)
		who, err := v.verify(t.Context(), raw(t, text))
		var all map[string]any
		if err != nil || who.Subject == "" {
			return
		}
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		if decoder.Decode(&all) != nil || fmt.Sprint(all[claim]) != who.Subject || strings.TrimSpace(who.Subject) == "" {
			t.Errorf("%s: speaks for %q", text, who.Subject)
		}
		switch all[claim].(type) {
		case string, json.Number:
		default:
			t.Errorf("%s: speaks for %q", text, who.Subject)
		}
	})
}
