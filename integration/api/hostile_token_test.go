package api

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"auditstream/integration/harness"

	"github.com/golang-jwt/jwt/v5"
)

// forged is a compact token of any two texts, signed with whatever key is given: a library would not write most of them.
func forged(t testing.TB, header, claims string, key any) string {
	t.Helper()
	text := harness.Base64URL([]byte(header)) + "." + harness.Base64URL([]byte(claims))
	sum := sha256.Sum256([]byte(text))
	var signature []byte
	var err error
	switch key := key.(type) {
	case []byte:
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(text))
		signature = mac.Sum(nil)
	case *rsa.PrivateKey:
		signature, err = rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	case *ecdsa.PrivateKey:
		r, s, e := ecdsa.Sign(rand.Reader, key, sum[:])
		err = e
		if err == nil {
			signature = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}
	}
	harness.NoError(t, err)
	return text + "." + harness.Base64URL(signature)
}

// elsewhere is a host that nobody may be made to ask.
func elsewhere(t testing.TB) (url string) {
	t.Helper()
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(func() {
		server.Close()
		harness.Equal(t, asked.Load(), 0, "times that another host was asked")
	})
	return server.URL
}

func TestAPIHostileTokens(t *testing.T) { harness.OverHTTP1And2(t, testAPIHostileTokens) }

func testAPIHostileTokens(t *testing.T) {
	db := harness.NewFirstAuditDatabase(t)
	rs, rsPublic := harness.RSAKey(t, "r1")
	es, esPublic := harness.ECKey(t, "e1")
	mine, minePublic := harness.RSAKey(t, "r1")
	iss := harness.NewIssuer(t, rsPublic, esPublic)
	i := harness.Serve(t, db.Serve, iss.Env()...)
	away := elsewhere(t)
	hs := []byte(harness.JWTSecret)
	der, err := x509.MarshalPKIXPublicKey(&rs.PublicKey)
	harness.NoError(t, err)
	const hs256 = `{"alg":"HS256","typ":"JWT"}`
	claims := func(more string) string {
		return `{"iss":"https://issuer.example","aud":"auditstream","sub":"alice","exp":4102444800` + more + `}`
	}
	good := claims("")
	with := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	jwk := fmt.Sprintf(`{"kty":"RSA","kid":"r1","n":%q,"e":"AQAB"}`, minePublic["n"])
	refused := map[string]string{
		"none": forged(t, `{"alg":"none"}`, good, nil), "None": forged(t, `{"alg":"None"}`, good, nil), "nOnE, signed": forged(t, `{"alg":"nOnE"}`, good, hs),
		"no alg": forged(t, `{"typ":"JWT"}`, good, hs), "empty alg": forged(t, `{"alg":""}`, good, hs), "alg null": forged(t, `{"alg":null}`, good, hs),
		"alg of a list": forged(t, `{"alg":["HS256"]}`, good, hs), "alg in small letters": forged(t, `{"alg":"hs256"}`, good, hs),
		"HS256 with an empty key": forged(t, hs256, good, []byte{}), "RS256 that is an HMAC": forged(t, `{"alg":"RS256","kid":"r1"}`, good, hs),
		"HS256 with the public key in PEM": forged(t, hs256, good, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		"HS256 with the public key in DER": forged(t, hs256, good, der), "HS256 with the modulus": forged(t, hs256, good, rs.N.Bytes()),
		"RS512": harness.IssuedToken(t, jwt.SigningMethodRS512, rs, "r1", nil), "PS256": harness.IssuedToken(t, jwt.SigningMethodPS256, rs, "r1", nil), "another key of that kid": forged(t, `{"alg":"RS256","kid":"r1"}`, good, mine),
		"ES256 of zeros":       strings.TrimSuffix(forged(t, `{"alg":"ES256","kid":"e1"}`, good, nil), ".") + "." + harness.Base64URL(make([]byte, 64)),
		"ES256 with RSA's kid": forged(t, `{"alg":"ES256","kid":"r1"}`, good, es),
		"alg twice, none last": forged(t, `{"alg":"HS256","alg":"none"}`, good, hs), "kid twice, signed by the first": forged(t, `{"alg":"RS256","kid":"r1","kid":"e1"}`, good, rs),
		"its own key (jwk)": forged(t, `{"alg":"RS256","kid":"r1","jwk":`+jwk+`}`, good, mine), "its own key alone": forged(t, `{"alg":"RS256","jwk":`+jwk+`}`, good, mine),
		"its own key set (jku)": forged(t, `{"alg":"RS256","kid":"r1","jku":"`+away+`/keys"}`, good, mine), "its own certificate (x5u)": forged(t, `{"alg":"RS256","kid":"r1","x5u":"`+away+`/cert"}`, good, mine),
		"crit": forged(t, `{"alg":"HS256","crit":["exp"]}`, good, hs), "crit null": forged(t, `{"alg":"HS256","crit":null}`, good, hs), "crit of b64": forged(t, `{"alg":"HS256","crit":["b64"],"b64":false}`, good, hs),
		"payload that is not encoded (b64)": unencoded(good, hs),
		"header null":                       forged(t, `null`, good, hs), "header of a list": forged(t, `[]`, good, hs), "claims null": forged(t, hs256, `null`, hs), "claims of a list": forged(t, hs256, `[`+good+`]`, hs),
		"two sets of claims": forged(t, hs256, good+good, hs), "claims in claims": forged(t, hs256, `{"claims":`+good+`}`, hs),
		"exp 0": forged(t, hs256, with("4102444800", "0"), hs), "negative exp": forged(t, hs256, with("4102444800", "-4102444800"), hs), "huge negative exp": forged(t, hs256, with("4102444800", "-1e300"), hs),
		"exp beyond int64": forged(t, hs256, with("4102444800", "1e300"), hs), "exp NaN": forged(t, hs256, with("4102444800", "NaN"), hs), "exp null": forged(t, hs256, with("4102444800", "null"), hs),
		"exp a list": forged(t, hs256, with("4102444800", "[4102444800]"), hs), "exp true": forged(t, hs256, with("4102444800", "true"), hs), "exp twice, over in the last": forged(t, hs256, claims(`,"exp":1`), hs),
		"EXP": forged(t, hs256, with(`"exp"`, `"EXP"`), hs), "nbf in the future": forged(t, hs256, claims(`,"nbf":4102444800`), hs), "nbf no number": forged(t, hs256, claims(`,"nbf":"soon"`), hs),
		"nbf huge":   forged(t, hs256, claims(`,"nbf":1e18`), hs),
		"iss a list": forged(t, hs256, with(`"https://issuer.example"`, `["https://issuer.example"]`), hs), "iss with a slash more": forged(t, hs256, with(`issuer.example"`, `issuer.example/"`), hs),
		"aud an empty list": forged(t, hs256, with(`"auditstream"`, `[]`), hs), "aud of lists": forged(t, hs256, with(`"auditstream"`, `[["auditstream"]]`), hs), "aud an object": forged(t, hs256, with(`"auditstream"`, `{"auditstream":1}`), hs),
		"aud of another case": forged(t, hs256, with(`"auditstream"`, `"Auditstream"`), hs), "aud twice, another last": forged(t, hs256, claims(`,"aud":"other"`), hs),
		"sub a number": forged(t, hs256, with(`"alice"`, `1`), hs), "sub a list": forged(t, hs256, with(`"alice"`, `["alice"]`), hs), "sub an object": forged(t, hs256, with(`"alice"`, `{"x":"alice"}`), hs),
		"huge, within the header's bound": forged(t, hs256, claims(`,"pad":"`+strings.Repeat("x", 9000)+`"`), hs), "thousands of dots": strings.Repeat(".", 8000),
		"four parts": forged(t, hs256, good, hs) + ".x", "five parts, encrypted": "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..AAAA.AAAA.AAAA", "padding": forged(t, hs256, good, hs) + "=",
		"deep": forged(t, hs256, claims(`,"x":`+strings.Repeat("[", 2500)+strings.Repeat("]", 2500)), []byte("another")),
	}
	// All of these make the server look for a new key, and wait for one look together.
	for name, kid := range map[string]string{
		"a path": "../../etc/passwd", "an absolute path": "/dev/null", "a URL": away + "/keys", "SQL": "r1' or '1'='1", "NUL": `r1\u0000`, "another key's with NUL": `\u0000`, "a command": "r1;$(id)",
		"of another case": "R1", "with a blank": "r1 ", "no text at all": "", "lines": `r1\r\nr1`,
	} {
		refused["kid: "+name] = forged(t, `{"alg":"RS256","kid":"`+kid+`"}`, good, mine)
	}
	refused["kid: 257 bytes"] = forged(t, `{"alg":"RS256","kid":"`+strings.Repeat("k", 257)+`"}`, good, rs)
	refused["kid: a number"] = forged(t, `{"alg":"RS256","kid":1}`, good, rs)
	refused["kid: a list"] = forged(t, `{"alg":"RS256","kid":["r1"]}`, good, rs)

	before := iss.Asked()
	var requests sync.WaitGroup
	places := make(chan struct{}, 16) // what does not wait for the issuer goes in small lots: a request that takes 10 s is given up
	for name, tok := range refused {
		for _, path := range []string{harness.StatusPath("1"), harness.StreamPath("1")} {
			requests.Go(func() {
				if !strings.HasPrefix(name, "kid: ") {
					places <- struct{}{}
					defer func() { <-places }()
				}
				got := i.AskAs(t, tok, path)
				body, challenge, status := harness.InvalidToken, harness.InvalidChallenge, 401
				if got.Status != status || got.Body != body || got.Header.Get("WWW-Authenticate") != challenge {
					t.Errorf("%s: %s: %d %s %s", name, path, got.Status, got.Body, got.Header.Get("WWW-Authenticate"))
				}
			})
		}
	}
	requests.Wait()
	if asked := iss.Asked() - before; asked > 3 {
		t.Errorf("%d requests with unknown key ids asked the issuer %d times, want 3 at most", 2*len(refused), asked)
	}
	for name, tt := range map[string]struct {
		token string
		want  int
	}{
		"good":                                {forged(t, hs256, good, hs), 200},
		"RS256":                               {forged(t, `{"alg":"RS256","kid":"r1"}`, good, rs), 200},
		"ES256":                               {forged(t, `{"alg":"ES256","kid":"e1"}`, good, es), 200},
		"RS256 without a kid":                 {forged(t, `{"alg":"RS256"}`, good, rs), 200},
		"exp with a fraction":                 {forged(t, hs256, with("4102444800", "4102444800.75"), hs), 200},
		"exp as a power":                      {forged(t, hs256, with("4102444800", "4.1024448e9"), hs), 200},
		"aud a list":                          {forged(t, hs256, with(`"auditstream"`, `["x","auditstream"]`), hs), 200},
		"sub twice: the last is meant":        {forged(t, hs256, claims(`,"sub":"bob"`), hs), 403},
		"sub twice: the last is meant, alice": {forged(t, hs256, with(`"sub"`, `"sub":"bob","sub"`), hs), 200},
		"no sub":                              {forged(t, hs256, with(`"sub":"alice",`, ``), hs), 403},
		"sub null":                            {forged(t, hs256, with(`"alice"`, `null`), hs), 403},
		"sub with a control character":        {forged(t, hs256, with(`"alice"`, `"alice\u0000"`), hs), 403},
		"sub with a line after it":            {forged(t, hs256, with(`"alice"`, `"alice\nlevel=ERROR msg=forged"`), hs), 403},
		"sub with half a character":           {forged(t, hs256, with(`"alice"`, `"alice\ud800"`), hs), 403},
		"jku of a good token is not asked":    {forged(t, `{"alg":"RS256","kid":"r1","jku":"`+away+`","x5u":"`+away+`","x5c":["AA=="],"jwk":`+jwk+`}`, good, rs), 200},
	} {
		harness.Equal(t, i.AskAs(t, tt.token, harness.StatusPath("1")).Status, tt.want, name)
	}
	// net/http refuses what is larger than all headers may be, before anything of ours sees it.
	huge := forged(t, `{"alg":"RS256","kid":"`+strings.Repeat("k", 1<<20)+`"}`, good, rs)
	resp, err := http.DefaultClient.Do(harness.Request(t, t.Context(), i.URL+harness.StatusPath("1"), huge))
	if err == nil {
		if _ = resp.Body.Close(); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a kid of 1 MB: %d, want 431", resp.StatusCode)
		}
	}
	log := i.Log.String()
	harness.WantIn(t, log, "request refused")
	for name, tok := range refused {
		parts := strings.Split(tok, ".")
		for _, part := range append(parts[1:], tok) { // some headers are everybody's
			if len(part) >= 16 && strings.Contains(log, part) {
				t.Errorf("%s: the log has %.40s of the token", name, part)
			}
		}
	}
	if strings.Contains(log, `\nlevel=ERROR msg=forged`) || strings.Contains(log, "\nlevel=ERROR") {
		t.Error("a claim is in the log")
	}
}

// unencoded signs the claims themselves instead of their base64, as RFC 7797 has it, without saying that it is critical.
func unencoded(claims string, key []byte) string {
	header := harness.Base64URL([]byte(`{"alg":"HS256","b64":false}`))
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(header + "." + claims))
	return header + "." + harness.Base64URL([]byte(claims)) + "." + harness.Base64URL(mac.Sum(nil))
}

// A rotation ends nobody's stream: a token was good when it was checked, and is until its exp. Whoever comes afterwards
// needs one of the new key.
func TestAPIKeyRotationLeavesOpenStreams(t *testing.T) {
	harness.OverHTTP1And2(t, testAPIKeyRotationLeavesOpenStreams)
}

func testAPIKeyRotationLeavesOpenStreams(t *testing.T) {
	db := harness.NewFirstAuditDatabase(t)
	old, oldPublic := harness.RSAKey(t, "old")
	fresh, freshPublic := harness.ECKey(t, "new")
	iss := harness.NewIssuer(t, oldPublic)
	i := harness.ServeReady(t, db.Serve, append(iss.Env(), "JWT_SECRET=")...)
	const lasts = 20 * time.Second
	exp := time.Now().Add(lasts)
	long := i.Watch(t, "1", harness.IssuedToken(t, jwt.SigningMethodRS256, old, "old", nil))
	short := i.Watch(t, "1", harness.IssuedToken(t, jwt.SigningMethodRS256, old, "old", jwt.MapClaims{"exp": exp.Unix()}))
	long.Next(t)
	short.Next(t)

	iss.Publish(freshPublic)
	rotated := time.Now()
	newToken := harness.IssuedToken(t, jwt.SigningMethodES256, fresh, "new", nil)
	another := i.Watch(t, "1", newToken)
	if took := time.Since(rotated); took > 15*time.Second { // 5 s between looks, 5 s for one
		t.Errorf("the new key was accepted after %v", took)
	}
	another.Next(t)
	i.AskAs(t, harness.IssuedToken(t, jwt.SigningMethodRS256, old, "old", nil), harness.StreamPath("1")).WantRefusal(t, 401, harness.InvalidToken, harness.InvalidChallenge)

	db.SQL(t, "update audits set progress = 26 where id = 1")
	for _, s := range []*harness.Stream{long, another} {
		harness.WantIn(t, s.Next(t).Data, `"progress":26`)
	}
	if e := short.Next(t); strings.Contains(e.Data, `"progress":26`) { // unless the machine took 20 s to get here
		short.WantEvent(t, `{"error":"Token expired"}`)
	}
	short.Ended(t)
	if time.Now().Before(exp.Add(-2 * time.Second)) {
		t.Error("a stream ended before its token's exp")
	}
	long.Cancel()
	another.Cancel()
}

// Whatever the issuer answers when we start: we serve, tokens that need no issuer are good, others come back later; when it
// has answered well once, nothing that it answers afterwards takes the known keys away.
func TestAPIIssuerInTrouble(t *testing.T) {
	t.Parallel()
	db := harness.NewFirstAuditDatabase(t)
	key, public := harness.RSAKey(t, "r1")
	token := harness.IssuedToken(t, jwt.SigningMethodRS256, key, "r1", nil)
	ownToken := harness.IssuedToken(t, jwt.SigningMethodHS256, []byte(harness.JWTSecret), "", nil)
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	text := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
	}
	for name, trouble := range map[string]http.HandlerFunc{
		"silent": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-over:
			}
		},
		"hangs up": func(w http.ResponseWriter, _ *http.Request) {
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = conn.Close()
			}
		},
		"a key of 512 bits": text(`{"keys":[{"kty":"RSA","kid":"r1","e":"AQAB","n":"` + strings.Repeat("w", 86) + `"}]}`),
		"away for ever":     func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"x", http.StatusFound) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			iss := harness.NewIssuer(t, public)
			iss.Misbehave(trouble)
			i := harness.ServeReady(t, db.Serve, iss.Env()...)
			get := func(token string) harness.Answer {
				return i.AskAs(t, token, harness.StatusPath("1"))
			}
			get(ownToken).WantStatus(t, 200)
			get(token).WantRefusal(t, 503, `{"error":"Signing keys are not available yet"}`, "")
			iss.Misbehave(nil)
			get(token).WantStatus(t, 200)
			iss.Misbehave(trouble)
			get(harness.IssuedToken(t, jwt.SigningMethodRS256, key, "unknown", nil)).WantRefusal(t, 401, harness.InvalidToken, harness.InvalidChallenge)
			get(token).WantStatus(t, 200)
			if strings.Contains(i.Log.String(), harness.JWTSecret) || strings.Contains(i.Log.String(), token) {
				t.Error("the log has a secret or a token")
			}
		})
	}
}
