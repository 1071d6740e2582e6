package server

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/testkit"

	"github.com/golang-jwt/jwt/v5"
)

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
		if !log.Has("claim=" + claim) {
			t.Errorf("the log does not name %s:\n%s", claim, log)
		}
	}
}

// Users whose tokens name them in another claim than sub owned no rows.
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
		case (tc.want == refused || tc.want == nobody && who.Email == "") && !log.Has("JWT_USER_CLAIM") && tc.claim != "email":
			t.Errorf("%s: %s: the log does not say what to set: %s", tc.claim, tc.claims, log)
		}
	}
}

// Clocks differ: a token that becomes valid within a minute is accepted; an expired token is not.
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

// A date that overflows time.Time became one in the past: a token with such an nbf was valid at once.
func TestU25DateBeyondAllTimeIsNoDate(t *testing.T) {
	t.Parallel()
	v, _ := logged(t, AuthConfig{Secret: testSecret})
	for _, seconds := range []any{1e16, 9.3e18, -9.3e18, 1e19, 1e308, -1e308, json.Number("9223372036854775807"), json.Number("9223372036854775808")} {
		for _, claim := range []string{"nbf", "iat", "exp"} {
			claims := jwt.MapClaims{"sub": "alice", "exp": time.Now().Unix() + 60}
			claims[claim] = seconds
			if _, err := v.verify(t.Context(), sign(t, claims)); answerTo(err) != errInvalidToken {
				t.Errorf("%s %v: %v, want it refused", claim, seconds, err)
			}
		}
	}
}

// A token that is not valid yet gets the answer to any invalid token, with a Retry-After.
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
		if got := c.header.Get(AnswerHeader) == answerFinal; ahead > 0 && got == want {
			t.Errorf("%v ahead: for good is %v", ahead, got)
		}
	}
}

// With a line break at the end of the secret all tokens were refused, and no log said why.
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
			if strings.Contains(got+log.String(), testSecret) || log.Count("level=WARN") != len(cfg.Warnings()) {
				t.Errorf("%s %q: the log is %s", name, secret, log)
			}
			if _, err := v.verify(t.Context(), signed(t, jwt.SigningMethodHS256, []byte(secret), claimsOf("alice"), nil)); err != nil {
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

// No claim names a user if it is blank, or neither a text nor a whole number, whatever the other claims are.
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
		testkit.NoError(t, err)
		text := fmt.Sprintf(`{"exp":%s,%s:%s}`, farFuture, name, value)
		who, err := verifierOf(t, cfg).verify(t.Context(), raw(t, text))
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

// The settings on the page docs/tokens-and-issuers.md are accepted as they are.
func TestTokensPageSettingsAreValid(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/tokens-and-issuers.md")
	testkit.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```env\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 10 {
		t.Errorf("%d blocks of settings", len(blocks))
	}
	for _, block := range blocks {
		var cfg AuthConfig
		settings := map[string]*string{"JWT_JWKS_URL": &cfg.JWKSURL, "JWT_ISSUER": &cfg.Issuer, "JWT_AUDIENCE": &cfg.Audience, "JWT_AUDIENCE_CLAIM": &cfg.AudienceClaim, "JWT_USER_CLAIM": &cfg.UserClaim}
		for line := range strings.Lines(block[1]) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch setting := settings[name]; {
			case setting != nil:
				*setting = value
			case name == "JWT_SECRET":
				cfg.Secret = testSecret // the page names it
			default:
				t.Errorf("%s is no setting of tokens", name)
			}
		}
		if err := cfg.Validate(); err != nil {
			t.Errorf("%s: %v", block[1], err)
		}
	}
}

// A number among the groups, as the ids of organisations are, locked its user out of everything.
func TestGroupsMayBeWholeNumbers(t *testing.T) {
	t.Parallel()
	v := verifierOf(t, AuthConfig{Secret: testSecret, GroupsClaim: "orgs"})
	for claim, want := range map[string]string{
		`"a"`: "a", `7`: "7", `["a"]`: "a", `[7]`: "7", `[ 7 , "a b" ]`: "7,a b", `[-7,"\u0061"]`: "-7,a", `[90071992547409930]`: "90071992547409930",
		`null`: "", `[]`: "", `""`: "",
		`true`: "refused", `7.0`: "refused", `1e3`: "refused", `[7.5]`: "refused", `[null]`: "refused", `[["a"]]`: "refused", `{"a":1}`: "refused",
	} {
		claims := claimsOf("alice")
		claims["orgs"] = json.RawMessage(claim)
		who, err := v.verify(t.Context(), signed(t, jwt.SigningMethodHS256, []byte(testSecret), claims, nil))
		got := strings.Join(who.Groups, ",")
		if err != nil {
			got = "refused"
		}
		if got != want || err != nil && answerTo(err) != errInvalidToken {
			t.Errorf("%s: %s, %v, want %s", claim, got, err, want)
		}
	}
}
