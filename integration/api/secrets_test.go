package api

import (
	"net/url"
	"strings"
	"testing"

	"auditstream/integration/harness"
	"auditstream/internal/pgtest"

	"github.com/golang-jwt/jwt/v5"
)

// A whole life of an instance, with all that goes wrong in it, at the level debug: its log tells nothing that others may
// not know.
func TestAPISecretsAreNeverLogged(t *testing.T) {
	harness.OverHTTP1And2(t, testAPISecretsAreNeverLogged)
}

func testAPISecretsAreNeverLogged(t *testing.T) {
	server := pgtest.NewServer(t)
	db := harness.Adopt(t, server.DSN("postgres"))
	i := harness.ServeReady(t, db.Serve, "SSE_AUTH_COOKIE=session", "JWT_SECRET_PREVIOUS=previous-0123456789-0123456789-abcdef")
	id := db.Insert(t, "status, progress, message", "'running', 1, 'murmured message'")
	good := harness.Token(t, jwt.MapClaims{"sub": "alice", "email": "alice@private.example"})
	forged := harness.SignToken(t, jwt.SigningMethodHS256, []byte("forged-secret-0123456789-abcdefgh"), nil, nil)
	expired := harness.Token(t, jwt.MapClaims{"sub": "alice", "exp": 1})

	s := i.Shown(t, id, good)
	db.SQL(t, "update audits set message = 'whispered message'")
	s.Next(t)
	for _, path := range []string{harness.StreamPath(id), harness.StatusPath(id)} {
		for _, tok := range []string{forged, expired, "abc." + good, strings.ToUpper(good)} {
			i.AskAs(t, tok, path)
			i.Ask(t, "GET", path, "Authorization", tok)
			i.Ask(t, "GET", path, "Cookie", "session="+tok)
			i.Ask(t, "GET", path+"?"+url.Values{"access_token": {tok}}.Encode())
		}
		i.Ask(t, "GET", path, "Authorization", "Basic YWxpY2U6c2VjcmV0")
		i.AskAs(t, good, path, "Authorization", "Bearer "+good)
		i.Ask(t, "POST", path+"?jwt="+good, "Authorization", "Bearer "+good)
		i.AskAs(t, good, "/nowhere?jwt="+good)
		// Some put it into the path.
		i.Ask(t, "GET", path+"/"+good)
		i.Ask(t, "GET", "/"+good)
		i.Ask(t, "GET", harness.StreamPath(good))
		i.Ask(t, "POST", harness.StatusPath(good))
	}
	harness.NoError(t, server.StopImmediate(t.Context()))
	i.Watch(t, id, good).Whole(t)
	i.AskAs(t, good, harness.StatusPath(id))
	harness.NoError(t, server.Restart(t.Context()))
	i.WaitReady(t, "up")
	db.SQL(t, "update audits set status = 'failed', error = 'muttered error'")
	s.Until(t, func(p harness.Progress) bool { return p.Status == "failed" })
	s.Ended(t)

	i.WaitLog(t, "request refused")
	i.WaitLog(t, "stream ended")
	log := i.Log.String()
	admin, err := url.Parse(db.Admin)
	harness.NoError(t, err)
	adminPassword, _ := admin.User.Password()
	for name, private := range map[string]string{
		"the secret": harness.JWTSecret, "the previous secret": "previous-0123456789", "the role's password": "serve-password", "the superuser's password": adminPassword,
		"the connection string": db.Serve, "a message": "murmured", "a later message": "whispered", "an error": "muttered", "an address": "private.example", "credentials": "YWxpY2U6c2VjcmV0",
	} {
		if strings.Contains(log, private) {
			t.Errorf("the log tells %s", name)
		}
	}
	for name, tok := range map[string]string{"good": good, "forged": forged, "expired": expired} {
		head, payload, signature := harness.CutToken(t, tok)
		for _, part := range []string{head, payload, signature} {
			if strings.Contains(strings.ToUpper(log), strings.ToUpper(part)) {
				t.Errorf("the log tells a part of the %s token", name)
			}
		}
	}
}
