package integration

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"auditstream/internal/pgtest"

	"github.com/golang-jwt/jwt/v5"
)

// A whole life of an instance, with all that goes wrong in it, at the level debug: its log tells nothing that others may
// not know.
func TestAPISecretsAreNeverLogged(t *testing.T) { overBoth(t, testAPISecretsAreNeverLogged) }

func testAPISecretsAreNeverLogged(t *testing.T) {
	server := pgtest.NewServer(t)
	db := adopt(t, server.DSN("postgres"))
	i := serve(t, db.Serve, "SSE_AUTH_COOKIE=session", "JWT_SECRET_PREVIOUS=previous-0123456789-0123456789-abcdef")
	i.waitReady(t, "up")
	id := db.insert(t, "status, progress, message", "'running', 1, 'murmured message'")
	good := token(t, jwt.MapClaims{"sub": "alice", "email": "alice@private.example"})
	forged := sign(t, jwt.SigningMethodHS256, []byte("forged-secret-0123456789-abcdefgh"), nil, nil)
	expired := token(t, jwt.MapClaims{"sub": "alice", "exp": 1})

	s := i.watch(t, id, good)
	s.next(t)
	db.sql(t, "update audits set message = 'whispered message'")
	s.next(t)
	for _, path := range []string{streamPath(id), statusPath(id)} {
		for _, tok := range []string{forged, expired, "abc." + good, strings.ToUpper(good)} {
			i.ask(t, "GET", path, "Authorization", "Bearer "+tok)
			i.ask(t, "GET", path, "Authorization", tok)
			i.ask(t, "GET", path, "Cookie", "session="+tok)
			i.ask(t, "GET", path+"?"+url.Values{"access_token": {tok}}.Encode())
		}
		i.ask(t, "GET", path, "Authorization", "Basic YWxpY2U6c2VjcmV0")
		i.ask(t, "GET", path, "Authorization", "Bearer "+good, "Authorization", "Bearer "+good)
		i.ask(t, "POST", path+"?jwt="+good, "Authorization", "Bearer "+good)
		i.ask(t, "GET", "/nowhere?jwt="+good, "Authorization", "Bearer "+good)
		// Some put it into the path.
		i.ask(t, "GET", path+"/"+good)
		i.ask(t, "GET", "/"+good)
		i.ask(t, "GET", streamPath(good))
		i.ask(t, "POST", statusPath(good))
	}
	if err := server.StopImmediate(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.watch(t, id, good).whole(t)
	i.ask(t, "GET", statusPath(id), "Authorization", "Bearer "+good)
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.waitReady(t, "up")
	db.sql(t, "update audits set status = 'failed', error = 'muttered error'")
	s.until(t, func(p progress) bool { return p.Status == "failed" })
	s.ended(t)

	i.waitLog(t, "request refused")
	i.waitLog(t, "stream ended")
	log := i.log.String()
	admin, err := url.Parse(db.Admin)
	if err != nil {
		t.Fatal(err)
	}
	adminPassword, _ := admin.User.Password()
	for name, private := range map[string]string{
		"the secret": secret, "the previous secret": "previous-0123456789", "the role's password": "serve-password", "the superuser's password": adminPassword,
		"the connection string": db.Serve, "a message": "murmured", "a later message": "whispered", "an error": "muttered", "an address": "private.example", "credentials": "YWxpY2U6c2VjcmV0",
	} {
		if strings.Contains(log, private) {
			t.Errorf("the log tells %s", name)
		}
	}
	for name, tok := range map[string]string{"good": good, "forged": forged, "expired": expired} {
		head, payload, signature := cut(t, tok)
		for _, part := range []string{head, payload, signature} {
			if strings.Contains(strings.ToUpper(log), strings.ToUpper(part)) {
				t.Errorf("the log tells a part of the %s token", name)
			}
		}
	}
}

// Flags are for all to see on the machine, but not for who reaches the admin address.
func TestAPISecretsInFlagsAreNotShown(t *testing.T) {
	t.Parallel()
	db := newFirstAudit(t)
	const flagged = "flagged-secret-0123456789-abcdefgh"
	i := serve(t, "postgres://nobody@127.0.0.1:1/none", "--jwt-secret="+flagged, "--database-url="+db.Serve)
	i.waitReady(t, "up")
	// The harness looks for them in whatever the instance has printed and shows; here are those that it must look for.
	own := ownSecrets(nil, i.cmd.Args)
	if !slices.Equal(own, []string{flagged, "serve-password"}) && !slices.Equal(own, []string{"serve-password", flagged}) {
		t.Errorf("secrets %q, want those of the flags", own)
	}
	for _, found := range leaks(i.pages(), own) {
		t.Errorf("the admin address shows %s", found)
	}
	if got := (&instance{URL: i.Admin}).ask(t, "GET", "/debug/pprof/cmdline"); got.Status != 404 {
		t.Errorf("/debug/pprof/cmdline: %d, want 404", got.Status)
	}
}
