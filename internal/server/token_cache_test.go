package server

import (
	"crypto/sha256"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"auditstream/internal/store"
	"auditstream/internal/testkit"

	"github.com/golang-jwt/jwt/v5"
)

func cachedVerifier(t testing.TB, cfg AuthConfig, most int) *verifier {
	t.Helper()
	cfg.MaxCached = most
	return verifierOf(t, cfg)
}

func named(name string, left time.Duration) verifiedToken {
	return verifiedToken{Viewer: Viewer{Viewer: store.Viewer{Subject: name}, Expires: time.Now().Add(left)}}
}

func hashOf(name string) [sha256.Size]byte { return sha256.Sum256([]byte(name)) }

// A cached token gives the same viewer as a new verification, and not beyond the token's exp.
func TestCachedTokenExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := cachedVerifier(t, AuthConfig{Secret: testSecret}, 10)
		token := sign(t, jwt.MapClaims{"sub": "alice", "email": "a@b.c", "exp": time.Now().Add(time.Minute).Unix()})
		fresh, err := v.check(t.Context(), token)
		testkit.NoError(t, err)
		for range 2 {
			if who, err := v.verify(t.Context(), token); err != nil || !reflect.DeepEqual(who, fresh.Viewer) {
				t.Errorf("got %+v, %v, want %+v", who, err, fresh.Viewer)
			}
		}
		if _, ok := v.cache.find(hashOf(token)); !ok {
			t.Error("the token is not remembered")
		}
		v.cache.add(hashOf("not even a token"), named("bob", time.Minute), 0)
		if who, err := v.verify(t.Context(), "not even a token"); err != nil || who.Subject != "bob" {
			t.Errorf("got %+v, %v: what is remembered is not asked", who, err)
		}
		time.Sleep(time.Until(fresh.Expires) - 1)
		if _, err := v.verify(t.Context(), token); err != nil {
			t.Errorf("just before exp: %v", err)
		}
		time.Sleep(time.Nanosecond)
		if _, ok := v.cache.find(hashOf(token)); ok {
			t.Error("an expired token is remembered")
		}
		if _, err := v.verify(t.Context(), token); answerTo(err) != errInvalidToken {
			t.Errorf("at exp: %v, want errInvalidToken", err)
		}
		if n := len(v.cache.viewers); n != 1 {
			t.Errorf("%d entries are left, want the one that nobody asked for again", n)
		}
	})
}

func TestRefusedTokenIsNotCached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := cachedVerifier(t, AuthConfig{Secret: testSecret}, 10)
		early := sign(t, jwt.MapClaims{"sub": "alice", "nbf": time.Now().Add(notBeforeSkew + time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix()})
		good := sign(t, claimsOf("alice"))
		for _, token := range []string{early, good + "A", good[:len(good)-2], strings.ToUpper(good), ""} {
			if _, err := v.verify(t.Context(), token); answerTo(err) != errInvalidToken {
				t.Errorf("%v, want errInvalidToken", err)
			}
		}
		if n := len(v.cache.viewers); n != 0 {
			t.Errorf("%d refused tokens are remembered", n)
		}
		time.Sleep(time.Minute) // a refusal that were remembered would keep out what has become valid
		if _, err := v.verify(t.Context(), early); err != nil {
			t.Errorf("after nbf: %v", err)
		}
	})
}

// The clock may be set back after a token was found valid.
func TestCachedTokenIsNotServedBeforeItsTime(t *testing.T) {
	t.Parallel()
	v := newTokenCache(10, func() uint64 { return 0 })
	who := named("alice", time.Hour)
	who.from = time.Now().Add(time.Minute)
	v.add(hashOf("a"), who, 0)
	if _, ok := v.find(hashOf("a")); ok {
		t.Error("a token is served before its nbf")
	}
}

// No token survives the key that verified it: neither a cached one, nor one whose verification was under way.
func TestCachedTokenDoesNotSurviveItsKey(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	v := cachedVerifier(t, i.config(), 10)
	old := i.token(t, "one")
	if _, err := v.verify(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if _, ok := v.cache.find(hashOf(old)); !ok {
		t.Fatal("the token is not remembered")
	}
	before := v.generation()
	verifiedBefore, err := v.check(t.Context(), old)
	testkit.NoError(t, err)

	i.rotate(t, "two")
	v.keys.started = time.Time{} // as if the last fetch were long ago
	fresh := i.token(t, "two")
	if _, err := v.verify(t.Context(), fresh); err != nil {
		t.Errorf("the new key's token: %v", err)
	}
	v.keys.started = time.Time{}
	if _, err := v.verify(t.Context(), old); answerTo(err) != errInvalidToken {
		t.Errorf("the old key's token: %v, want errInvalidToken", err)
	}
	if _, err := v.verify(t.Context(), fresh); err != nil {
		t.Errorf("the new key's token: %v", err)
	}
	if _, ok := v.cache.find(hashOf(fresh)); !ok {
		t.Error("the new key's token is not remembered")
	}
	v.cache.add(hashOf(old), verifiedBefore, before) // by a request that was slower than the rotation
	if _, ok := v.cache.find(hashOf(old)); ok {
		t.Error("the old key's token was remembered after the rotation")
	}
}

// The same, if no request has come since the keys were fetched.
func TestCachedTokenIsForgottenAtARefresh(t *testing.T) {
	t.Parallel()
	var keys atomic.Uint64
	v := newTokenCache(10, keys.Load)
	v.add(hashOf("a"), named("alice", time.Hour), keys.Load())
	keys.Add(1)
	if _, ok := v.find(hashOf("a")); ok {
		t.Error("found by keys that have changed")
	}
	v.add(hashOf("b"), named("bob", time.Hour), keys.Load())
	if _, ok := v.find(hashOf("a")); ok || len(v.viewers) != 1 {
		t.Errorf("%d entries, want the new one alone", len(v.viewers))
	}
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	v := newTokenCache(10, func() uint64 { return 0 })
	for k := range 100 {
		name := fmt.Sprint(k)
		v.add(hashOf(name), named(name, time.Hour), 0)
		if who, ok := v.find(hashOf(name)); !ok || who.Subject != name {
			t.Errorf("%s: got %+v, %v right after it was added", name, who, ok)
		}
		if n := len(v.viewers); n > 10 {
			t.Fatalf("%d entries, want 10 at most", n)
		}
	}
}

// No user is ever taken for another, whatever is dropped from the cache meanwhile. For the race detector, too.
func TestCacheIsSafeForManyAtOnce(t *testing.T) {
	t.Parallel()
	var keys atomic.Uint64
	v := newTokenCache(20, keys.Load)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for k := range 2000 {
				name := fmt.Sprint(k % 40)
				if who, ok := v.find(hashOf(name)); ok && who.Subject != name {
					t.Errorf("%s was taken for %s", name, who.Subject)
				}
				since := keys.Load()
				if k%100 == 0 {
					keys.Add(1)
				}
				v.add(hashOf(name), named(name, time.Hour), since)
			}
		})
	}
	all.Wait()
}

// A token that was verified with a secret from before the reload is not in the cache after it, even if its check was under way.
func TestCachedTokenDoesNotSurviveAReload(t *testing.T) {
	t.Parallel()
	v := cachedVerifier(t, AuthConfig{Secret: testSecret}, 10)
	token := sign(t, jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Minute).Unix()})
	if _, err := v.verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	since := v.generation()
	testkit.NoError(t, v.reload(strings.Repeat("n", 32), ""))
	v.cache.add(hashOf(token), named("alice", time.Minute), since)
	if who, err := v.verify(t.Context(), token); err == nil {
		t.Errorf("got %+v, want that the old secret's token is refused", who)
	}
	if err := v.reload("", ""); err == nil || !strings.Contains(err.Error(), "JWT_SECRET") {
		t.Errorf("error %v, want that a way to verify tokens is missing", err)
	}
	testkit.NoError(t, v.reload(strings.Repeat("n", 32), testSecret))
	if _, err := v.verify(t.Context(), token); err != nil {
		t.Errorf("with the previous secret: %v", err)
	}
}
