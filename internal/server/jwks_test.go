package server

import (
	"context"
	"crypto"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/testkit"

	"github.com/golang-jwt/jwt/v5"
)

// bareJWKS has no keys; load is what it fetches.
func bareJWKS(load func(context.Context) (*KeySet, error)) *jwks {
	return &jwks{load: load, logger: slog.New(slog.DiscardHandler), waiting: make(chan struct{}, jwksMaxWaiting), fetching: make(chan struct{}, 1)}
}

// keySet is a set of public keys by their kid.
func keySet(t testing.TB, keys map[string]crypto.PublicKey) *KeySet {
	t.Helper()
	set := &KeySet{byKID: make(map[string][]crypto.PublicKey)}
	for kid, key := range keys {
		testkit.NoError(t, set.add(kid, key))
	}
	return set
}

func TestES256ByJWKS(t *testing.T) {
	t.Parallel()
	private := ecKey(t)
	i := newIssuer(t)
	i.publish(t, "", []any{ecJWKOf(t, &private.PublicKey, "ec")}, "")
	v := i.verifier(t)
	for name, change := range map[string]jwt.MapClaims{
		"":                 nil,
		"another issuer":   {"iss": "https://evil.example"},
		"another audience": {"aud": []string{"billing"}},
		"no audience":      {"aud": nil},
	} {
		claims := claimsOf("alice")
		maps.Copy(claims, change)
		maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
		who, err := v.verify(t.Context(), signed(t, jwt.SigningMethodES256, private, claims, map[string]any{"kid": "ec"}))
		if name == "" && (err != nil || who.Subject != "alice") {
			t.Errorf("a good token: %q, %v", who.Subject, err)
		}
		if name != "" && answerTo(err) != errInvalidToken {
			t.Errorf("%s: %v, want errInvalidToken", name, err)
		}
	}
}

func TestAlgorithmsThatAreNotConfiguredAreRefused(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	secretOnly := newTestServer(t, hubFunc(unreachable), nil).verifier
	cfg := i.config()
	cfg.Secret = ""
	keysOnly := verifierOf(t, cfg)
	fetched := i.fetches.Load()
	if _, err := secretOnly.verify(t.Context(), i.token(t, "one")); answerTo(err) != errInvalidToken {
		t.Errorf("RS256 with a secret alone: %v", err)
	}
	if _, err := keysOnly.verify(t.Context(), aliceToken(t)); answerTo(err) != errInvalidToken {
		t.Errorf("HS256 with a JWKS alone: %v", err)
	}
	if got := i.fetches.Load(); got != fetched {
		t.Errorf("%d fetches for algorithms that are not configured", got-fetched)
	}
}

// Requests that waited for another's fetch could not be cancelled: clients that had gone kept their places, and shutdown
// waited for them.
func TestWaitingForKeysEndsWithTheRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := bareJWKS(slowly)
		go func() { _ = k.fetchForRequest(context.WithoutCancel(t.Context())) }() // fetches for a minute
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := k.fetchForRequest(ctx)
		if answerTo(err) != errNoKeys || time.Since(start) != time.Second {
			t.Errorf("%v after %v, want errNoKeys after 1 s", err, time.Since(start))
		}
		if got := len(k.waiting); got != 1 {
			t.Errorf("%d wait, want the one who fetches", got)
		}
		time.Sleep(time.Minute)
	})
}

// slowly needs a minute to fetch nothing.
func slowly(context.Context) (*KeySet, error) {
	time.Sleep(time.Minute)
	return nil, errTest
}

func TestWaitersForKeysAreLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := bareJWKS(slowly)
		for range jwksMaxWaiting {
			go func() { _ = k.fetchForRequest(t.Context()) }()
		}
		synctest.Wait()
		if err := k.fetchForRequest(t.Context()); answerTo(err) != errNoKeys {
			t.Errorf("%v, want errNoKeys at once", err)
		}
		time.Sleep(5 * time.Minute)
		if len(k.waiting)+len(k.fetching) != 0 {
			t.Errorf("%d wait and %d fetch when all is over", len(k.waiting), len(k.fetching))
		}
	})
}

func TestKnownKeyNeverWaits(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	v := i.verifier(t)
	v.keys.fetching <- struct{}{} // somebody fetches and fetches
	if _, err := v.verify(t.Context(), i.token(t, "one")); err != nil {
		t.Errorf("a token of a known key: %v", err)
	}
}

func TestWithoutKeysStreamsComeBackAndPollersWait(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
	i.answer.Store(&page)
	for path, want := range map[string]int{streamPath: 200, "/api/v1/audits/42/status": 503} {
		s := newTestServer(t, hubFunc(unreachable), func(c *Config) { c.Auth = i.config() })
		c := serve(s, get(t, path, "Authorization", "Bearer "+i.token(t, "one")))
		if c.status != want || !strings.Contains(c.String(), `{"error":"Signing keys are not available yet"}`) {
			t.Errorf("%s: %d %q", path, c.status, c.String())
		}
		if want == 200 && !strings.HasPrefix(c.String(), "retry: ") {
			t.Errorf("%s: no retry: %q", path, c.String())
		}
		if want == 503 && c.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", path)
		}
		if c := serve(s, authorized(t, path)); want == 503 && c.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: an HS256 token without the issuer: %d", path, c.status) // decided without keys
		}
	}
}

func TestRedirectWithinTheIssuerIsFollowed(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	i.publish(t, "", []any{jwkOf(&i.key.Load().PublicKey, "one")}, "")
	keys := *i.answer.Load()
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/keys" {
			http.Redirect(w, r, "/keys", http.StatusFound)
			return
		}
		keys(w, r)
	})
	i.answer.Store(&answer)
	if _, err := i.verifier(t).verify(t.Context(), i.token(t, "one")); err != nil {
		t.Errorf("keys behind a redirect: %v", err)
	}
}

// An issuer that replaced its key and kept its kid, or names no keys, had its new tokens refused until the next refresh, for up to ten minutes.
func TestKeyThatIsReplacedUnderItsKIDIsFetched(t *testing.T) {
	t.Parallel()
	for _, kid := range []string{"one", ""} {
		i := newIssuer(t)
		i.rotate(t, kid)
		v := i.verifier(t)
		before := i.token(t, kid)
		if _, err := v.verify(t.Context(), before); err != nil {
			t.Errorf("kid %q: %v", kid, err)
		}
		i.rotate(t, kid)
		fetched := i.fetches.Load()
		for range 3 {
			if _, err := v.verify(t.Context(), i.token(t, kid)); err != nil {
				t.Errorf("kid %q, a token of the new key: %v", kid, err)
			}
			if _, err := v.verify(t.Context(), before); answerTo(err) != errInvalidToken {
				t.Errorf("kid %q, a token of the key that was withdrawn: %v", kid, err)
			}
		}
		testkit.Equal(t, i.fetches.Load()-fetched, 1, "fetches for wrong signatures within 5 s")
	}
}

// Whoever sends wrong signatures makes at most one fetch in 5 s, and waits for one that is under way, but not for the next.
func TestWrongSignaturesDoNotFloodTheIssuer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fetches := 0
		k := bareJWKS(func(context.Context) (*KeySet, error) {
			fetches++
			time.Sleep(2 * jwksUnknownKID) // an issuer that hangs
			return keySet(t, nil), nil
		})
		for range 100 {
			go k.renew(t.Context())
		}
		time.Sleep(2 * jwksUnknownKID)
		synctest.Wait()
		testkit.Equal(t, len(k.waiting)+len(k.fetching), 0, "waiting or fetching, when the one fetch is over")
		start := time.Now()
		k.renew(t.Context())
		testkit.Equal(t, time.Since(start), 0, "a wait for keys that are new")
		testkit.Equal(t, fetches, 1, "fetches")
		time.Sleep(jwksUnknownKID)
		k.renew(t.Context())
		testkit.Equal(t, fetches, 2, "fetches, 5 s later")
		testkit.Equal(t, len(k.waiting)+len(k.fetching), 0, "waiting or fetching")
	})
}
