package ops

import (
	"encoding/json"
	"maps"
	"regexp"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
)

// recipe is what docs/tokens-and-issuers.md says of an issuer: settings, a token of its shape, and whose it is.
type recipe struct {
	issuer         string
	env            []string
	header, claims map[string]any
	owner          string
}

func (r recipe) setting(name string) string {
	for _, line := range r.env {
		if value, ok := strings.CutPrefix(line, name+"="); ok {
			return value
		}
	}
	return ""
}

func recipes(t testing.TB) []recipe {
	t.Helper()
	var all []recipe
	pair := regexp.MustCompile("(?s)```env\n(.*?)```\n```json\n(.*?)```\n\n`user_id` is `([^`]+)`")
	for _, section := range regexp.MustCompile(`(?m)^## `).Split(harness.Document(t, "docs/tokens-and-issuers.md"), -1)[1:] {
		name, _, _ := strings.Cut(section, "\n")
		for _, m := range pair.FindAllStringSubmatch(section, -1) {
			r := recipe{issuer: name, env: strings.Split(strings.TrimSpace(m[1]), "\n"), owner: m[3]}
			decoder := json.NewDecoder(strings.NewReader(m[2]))
			decoder.UseNumber()
			for _, target := range []*map[string]any{&r.header, &r.claims} {
				if err := decoder.Decode(target); err != nil {
					t.Fatalf("%s: %v in %s", name, err, m[2])
				}
			}
			all = append(all, r)
		}
		harness.Equal(t, strings.Count(section, "```env\n"), len(pair.FindAllString(section, -1)), "settings without a token and an owner", name)
	}
	return all
}

// insertFor adds an audit of somebody's and returns its id.
func insertFor(t testing.TB, d harness.Database, owner string) string {
	t.Helper()
	id := d.Insert(t, "", "")
	d.SQL(t, "update audits set user_id = '"+owner+"' where id = "+id)
	return id
}

// A token of each issuer's shape is accepted with the settings that the page gives for it, as its user, and no other one is.
func TestTokensPageHoldsForEachIssuer(t *testing.T) {
	t.Parallel()
	all := recipes(t)
	issuers := map[string]bool{}
	for _, r := range all {
		name, _, _ := strings.Cut(r.issuer, " (")
		issuers[name] = true
	}
	for _, name := range []string{"Auth0", "Cognito", "Clerk", "Keycloak", "Supabase", "Firebase", "Django", "Rails", "Laravel", "Auth.js"} {
		if !issuers[name] {
			t.Errorf("the page has no recipe for %s", name)
		}
	}
	db := harness.NewDatabase(t)
	foreign := insertFor(t, db, "somebody else")
	for _, r := range all {
		t.Run(r.issuer, func(t *testing.T) { r.try(t, db, foreign) })
	}
}

func (r recipe) try(t *testing.T, db harness.Database, foreign string) {
	mine := insertFor(t, db, r.owner)
	kid, _ := r.header["kid"].(string)
	rs, rsPublic := harness.RSAKey(t, kid)
	es, esPublic := harness.ECKey(t, kid)
	enc, encPublic := harness.RSAKey(t, "enc") // Keycloak's
	_, encPublic["use"], encPublic["alg"] = enc, "enc", "RSA-OAEP"
	method := jwt.GetSigningMethod(r.header["alg"].(string))
	keys := map[string]any{"HS256": []byte(harness.JWTSecret), "RS256": rs, "ES256": es}
	published := map[string]map[string]string{"RS256": rsPublic, "ES256": esPublic}[method.Alg()]
	var env []string
	for _, line := range r.env {
		name, _, _ := strings.Cut(line, "=")
		switch name {
		case "JWT_JWKS_URL":
			line = "JWT_JWKS_URL=" + harness.NewIssuer(t, encPublic, published).URL
			env = append(env, "JWT_SECRET=")
		case "JWT_SECRET":
			line = "JWT_SECRET=" + harness.JWTSecret
		}
		env = append(env, line)
	}
	i := harness.Serve(t, db.Serve, env...)

	issued, _ := r.claims["iat"].(json.Number).Int64()
	ago := time.Now().Unix() - issued
	token := func(change func(jwt.MapClaims)) string {
		claims := jwt.MapClaims(maps.Clone(r.claims))
		for _, name := range []string{"exp", "iat", "nbf", "auth_time"} {
			if number, ok := claims[name].(json.Number); ok {
				at, _ := number.Int64()
				claims[name] = at + ago
			}
		}
		if change(claims); claims["sub"] == nil { // sign adds one
			claims["sub"] = nil
		}
		return harness.SignToken(t, method, keys[method.Alg()], r.header, claims)
	}
	status := func(id, token string) int {
		return i.AskAs(t, token, harness.StatusPath(id)).Status
	}
	user := r.setting("JWT_USER_CLAIM")
	if user == "" {
		user = "sub"
	}
	audience := r.setting("JWT_AUDIENCE_CLAIM")
	if audience == "" {
		audience = "aud"
	}
	good := func(jwt.MapClaims) {}
	if got := status(mine, token(good)); got != 200 {
		t.Fatalf("the token of the page: %d, want 200", got)
	}
	harness.Equal(t, status(foreign, token(good)), 403, "somebody else's audit")
	if _, isNumber := r.claims[user].(json.Number); isNumber || r.setting("JWT_USER_CLAIM") != "" { // versions differ
		for _, value := range []any{r.owner, json.Number(r.owner)} {
			harness.Equal(t, status(mine, token(func(c jwt.MapClaims) { c[user] = value })), 200, user, value)
		}
	}
	for name, tc := range map[string]struct {
		change func(jwt.MapClaims)
		want   int
	}{
		"another user":  {func(c jwt.MapClaims) { c[user] = "mallory" }, 403},
		"no user":       {func(c jwt.MapClaims) { c[user] = nil }, 403},
		"expired":       {func(c jwt.MapClaims) { c["exp"] = time.Now().Unix() - 1 }, 401},
		"of an hour on": {func(c jwt.MapClaims) { c["nbf"] = time.Now().Unix() + 3600 }, 401},
	} {
		harness.Equal(t, status(mine, token(tc.change)), tc.want, name)
	}
	for claim, setting := range map[string]string{"iss": "JWT_ISSUER", audience: "JWT_AUDIENCE"} {
		if r.setting(setting) == "" {
			continue
		}
		for _, value := range []any{"other", r.setting(setting) + "/", nil, "", []string{"other"}} {
			harness.Equal(t, status(mine, token(func(c jwt.MapClaims) { c[claim] = value })), 401, claim, value)
		}
	}
	if audience != "aud" { // an ID token, say
		harness.Equal(t, status(mine, token(func(c jwt.MapClaims) { delete(c, audience); c["aud"] = r.setting("JWT_AUDIENCE") })), 401, "the audience in aud")
	}
}

// The page's commands run, and the token of one is what the serve beside it takes.
func TestTokensPageCommands(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	id := insertFor(t, db, "42")
	env := []string{"DATABASE_URL=" + db.Serve, "JWT_SECRET=" + harness.JWTSecret, "JWT_USER_CLAIM=https://app.example/uid", "JWT_AUDIENCE=auditstream", "JWT_AUDIENCE_CLAIM=azp", "JWT_ISSUER=https://id.example"}
	i := harness.Serve(t, db.Serve, env[2:]...)
	ran := 0
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(harness.Document(t, "docs/tokens-and-issuers.md"), -1) {
		for line := range strings.Lines(m[1]) {
			args := strings.Fields(strings.ReplaceAll(line, "--env-file auditstream.env", ""))
			switch ran++; args[1] {
			case "doctor":
				harness.WantIn(t, harness.RunCommand(t, env, args[1:]...), `iss must be "https://id.example" and azp "auditstream"; the user is the claim "https://app.example/uid"`)
			case "token":
				token := harness.Remember(strings.TrimSpace(harness.RunCommand(t, env, args[1:]...)))
				i.AskAs(t, token, harness.StatusPath(id)).WantStatus(t, 200)
			case "serve": // runs above
			default:
				t.Errorf("no test runs %s", line)
			}
		}
	}
	if ran < 4 {
		t.Errorf("%d commands were found", ran)
	}
	number := harness.Remember(strings.TrimSpace(harness.RunCommand(t, env, "token", "--claim", "https://app.example/uid=42")))
	i.AskAs(t, number, harness.StatusPath(id)).WantStatus(t, 200)
}

// A key that ends with a line break: serve and doctor say so, and do not show it.
func TestU18SecretThatEndsWithALineBreak(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	key := harness.JWTSecret + "\n"
	i := harness.Serve(t, db.Serve, "JWT_SECRET="+key)
	harness.WaitIn(t, i.Log.String, "JWT_SECRET ends with white space")
	out := harness.RunCommand(t, []string{"DATABASE_URL=" + db.Serve, "JWT_SECRET=" + key, "JWT_SECRET_PREVIOUS=\"" + harness.JWTSecret + "\""}, "doctor")
	harness.WantIn(t, out, "warn  tokens: JWT_SECRET ends with white space", "warn  tokens: JWT_SECRET_PREVIOUS is in quotes")
	harness.WantNoneIn(t, out+i.Log.String(), harness.JWTSecret)
}
