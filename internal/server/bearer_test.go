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
		jwt:                       true, // TestBareJWTInURLIsRefused: without a parameter's name it went unnoticed

		"last_event_id=9f1c0a9e2b7d4c35": false,
		"lastEventId=%zz;%":              false,
		"_=1764000000.123.4":             false,
		"tokens=1":                       false,
		"q=www.example.com":              false,
		"v=1.2.3":                        false,
		"x=eyJ":                          false,
	} {
		r := httptest.NewRequest(http.MethodGet, "/?"+query, nil)
		if got := tokenInURL(r.URL); got != want {
			t.Errorf("?%s: %v, want %v", query, got, want)
		}
	}
}

func TestWhereTheTokenIsTakenFrom(t *testing.T) {
	t.Parallel()
	session := http.Cookie{Name: "session", Value: "cookie"}
	for name, tc := range map[string]struct {
		setting        string // the configured name
		header, origin string
		cookie         http.Cookie
		token          string
		err            *apiError
	}{
		"nowhere":                                  {err: errMissingToken},
		"the header goes before the cookie":        {setting: "session", header: "Bearer header", cookie: session, token: "header"},
		"a bad header is not mended by the cookie": {setting: "session", header: "Bearer a b", cookie: session, err: errMalformedAuth},
		"the cookie":                               {setting: "session", cookie: session, token: "cookie"},
		"a cookie that is not configured":          {cookie: session, err: errMissingToken},
		"another cookie":                           {setting: "session", cookie: http.Cookie{Name: "other", Value: "cookie"}, err: errMissingToken},
		"a huge cookie":                            {setting: "session", cookie: http.Cookie{Name: "session", Value: strings.Repeat("a", maxToken+1)}, err: errInvalidToken},
		"an opaque origin":                         {setting: "session", origin: "null", cookie: session, err: errMissingToken},
		"another port":                             {setting: "session", origin: "http://example.com:8080", cookie: session, err: errMissingToken},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		for name, value := range map[string]string{"Authorization": tc.header, "Origin": tc.origin} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		if tc.cookie.Name != "" {
			r.AddCookie(&tc.cookie)
		}
		s := &Handler{cfg: Config{AuthCookie: tc.setting}}
		token, err := s.token(r)
		if token != tc.token || (err == nil) != (tc.err == nil) || err != nil && answerTo(err) != tc.err {
			t.Errorf("%s: %q, %v, want %q, %v", name, token, err, tc.token, tc.err)
		}
	}
}
