package server

import (
	"net/http"
	"testing"

	"auditstream/internal/store"
)

// Only our answers can be final. They say so in a header, and by their text where a proxy removes it. Temporary refusals do not.
func TestU6FinalAnswersSaySo(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, hubFunc(unreachable), nil)
	final := []error{errMissingToken, errInvalidToken, errTokenInURL, errMalformedAuth, errInvalidKey, errInvalidKeys, errForbidden, errNoRow, nameKey(store.Audits, "42", errForbidden), nameKey(store.Audits, "42", errNoRow), errNoFeed}
	for _, keys := range []store.KeyType{store.IntegerKeys, store.UUIDKeys, store.TextKeys} {
		jobs := &store.Feed{Name: "jobs", Key: keys}
		for _, e := range []*apiError{errInvalidKey, errInvalidKeys, errNoRow} {
			final = append(final, wordedFor(jobs, e))
		}
		for _, key := range []store.Key{"42", `a "b\" \\`, "<ä,/%>"} {
			final = append(final, nameKey(jobs, key, errForbidden), nameKey(jobs, key, wordedFor(jobs, errNoRow)))
		}
	}
	others := []error{errInternal, errUnavailable, errNoKeys, errTooManyStreams, errTooManyConns, errTooManyRefused, errShuttingDown}
	for k, err := range append(final, others...) {
		want := k < len(final)
		c := newClient()
		s.writeError(c, get(t, streamPath), err)
		answer := &http.Response{StatusCode: c.status, Header: c.Header()}
		if IsFinal(answer, nil) != want || (c.Header().Get("Auditstream-Answer") == "final") != want {
			t.Errorf("%v: %d with Auditstream-Answer %q, want final: %v", err, c.status, c.Header().Get("Auditstream-Answer"), want)
		}
		answer.Header.Del("Auditstream-Answer")
		if IsFinal(answer, []byte(c.String())) != want {
			t.Errorf("%v without the header: %s", err, c.String())
		}
	}
	for body, status := range map[string]int{
		"404 page not found": 404, `{"message":"no Route matched with those values"}`: 404, `{"error":"not found"}`: 404, `{"error":"Not found"}`: 404, "": 204,
		`{"error":"Audit not found","request_id":"1"}`: 404, `{"error":"Unauthorized"}`: 401, `{"error":"Forbidden"}`: 403, "<h1>Gone</h1>": 410,
		`{"error":{"message":"Audit not found"}}`: 404, `{"error":"Audit not found"}`: 200, `{"error":"Cross-user access denied"}`: 502, "null": 404,
		`{"error":"Audit not found: audit x"}`: 404, `{"error":"No such row","of":"x"}`: 404, `{"error":"No such row: x\"}`: 404, `{"error":"Invalid id"}`: 400, `{"error":"No such route"}`: 404, `["Audit not found"]`: 404,
	} {
		if IsFinal(&http.Response{StatusCode: status, Header: make(http.Header)}, []byte(body)) {
			t.Errorf("%d %s is taken for a refusal of ours", status, body)
		}
	}
	if IsFinal(&http.Response{StatusCode: 502, Header: http.Header{AnswerHeader: {"final"}}}, nil) {
		t.Error("502 is for good")
	}
}
