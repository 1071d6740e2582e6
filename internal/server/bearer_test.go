package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestBearer(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", maxToken)
	for value, want := range map[string]struct {
		token string
		err   *apiError
	}{
		"Bearer a.b.c":              {token: "a.b.c"},
		"bearer a.b.c":              {token: "a.b.c"},
		"BEARER a.b.c":              {token: "a.b.c"},
		"Bearer   a.b.c ":           {token: "a.b.c"},
		"Bearer AZaz09-._~+/==":     {token: "AZaz09-._~+/=="},
		"Bearer " + long:            {token: long},
		"Bearer " + long + "a":      {err: errInvalidToken},
		"":                          {err: errMalformedAuth},
		"Bearer":                    {err: errMalformedAuth},
		"Bearer ":                   {err: errMalformedAuth},
		"Bearer a b":                {err: errMalformedAuth},
		"Bearer a,Bearer b":         {err: errMalformedAuth},
		"Bearer a, Bearer b":        {err: errMalformedAuth},
		`Bearer "a.b.c"`:            {err: errMalformedAuth},
		"Bearer =":                  {err: errMalformedAuth},
		"Bearer a\u00e9":            {err: errMalformedAuth},
		"Basic YTpi":                {err: errMissingToken},
		"Digest username=\"alice\"": {err: errMissingToken},
		"Bearertoken":               {err: errMissingToken},
		"a.b.c":                     {err: errMissingToken},
	} {
		token, err := bearer(value)
		if token != want.token || (err == nil) != (want.err == nil) || err != nil && answerTo(err) != want.err {
			t.Errorf("bearer(%.40q) = %.40q, %v, want %.40q, %v", value, token, err, want.token, want.err)
		}
	}
}

func TestTokenInURL(t *testing.T) {
	t.Parallel()
	const jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"
	for query, want := range map[string]bool{
		"":                        false,
		"last_event_id=abc":       false,
		"q=eyJ":                   false,
		"q=a.b.c":                 false,
		"access_token=":           true,
		"Access_Token=x":          true,
		"token=x":                 true,
		"id_token=x":              true,
		"jwt=x":                   true,
		"authorization=x":         true,
		"bearer=x":                true,
		"q=" + jwt:                true,
		"q=1&q=" + jwt:            true,
		"q=Bearer+" + jwt:         true,
		"q=" + jwt[:len(jwt)-4]:   true, // without its signature
		"last_event_id=" + jwt:    true,
		"q=%65yJhbGci.eyJzdWI.c2": true, // escaped
	} {
		r := httptest.NewRequest(http.MethodGet, "/?"+query, nil)
		if got := tokenInURL(r.URL); got != want {
			t.Errorf("?%s: %v, want %v", query, got, want)
		}
	}
}

// A JWT without a parameter's name went unnoticed.
func TestBareJWTInURLIsRefused(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest(http.MethodGet, "/?eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln", nil)
	if !tokenInURL(r.URL) {
		t.Error("accepted, want it refused")
	}
}

func TestWhereTheTokenIsTakenFrom(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		cookie  string // the configured name
		request func(r *http.Request)
		token   string
		err     *apiError
	}{
		"nowhere": {request: func(*http.Request) {}, err: errMissingToken},
		"the header goes before the cookie": {cookie: "session", token: "header", request: func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer header")
			r.AddCookie(&http.Cookie{Name: "session", Value: "cookie"})
		}},
		"a bad header is not mended by the cookie": {cookie: "session", err: errMalformedAuth, request: func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer a b")
			r.AddCookie(&http.Cookie{Name: "session", Value: "cookie"})
		}},
		"the cookie": {cookie: "session", token: "cookie", request: func(r *http.Request) {
			r.AddCookie(&http.Cookie{Name: "session", Value: "cookie"})
		}},
		"a cookie that is not configured": {err: errMissingToken, request: func(r *http.Request) {
			r.AddCookie(&http.Cookie{Name: "session", Value: "cookie"})
		}},
		"another cookie": {cookie: "session", err: errMissingToken, request: func(r *http.Request) {
			r.AddCookie(&http.Cookie{Name: "other", Value: "cookie"})
		}},
		"a huge cookie": {cookie: "session", err: errInvalidToken, request: func(r *http.Request) {
			r.AddCookie(&http.Cookie{Name: "session", Value: strings.Repeat("a", maxToken+1)})
		}},
		"an opaque origin": {cookie: "session", err: errMissingToken, request: func(r *http.Request) {
			r.Header.Set("Origin", "null")
			r.AddCookie(&http.Cookie{Name: "session", Value: "cookie"})
		}},
		"another port": {cookie: "session", err: errMissingToken, request: func(r *http.Request) {
			r.Header.Set("Origin", "http://example.com:8080")
			r.AddCookie(&http.Cookie{Name: "session", Value: "cookie"})
		}},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		tc.request(r)
		s := &Handler{cfg: Config{AuthCookie: tc.cookie}}
		token, err := s.token(r)
		if token != tc.token || (err == nil) != (tc.err == nil) || err != nil && answerTo(err) != tc.err {
			t.Errorf("%s: %q, %v, want %q, %v", name, token, err, tc.token, tc.err)
		}
	}
}
