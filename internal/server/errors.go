package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"auditstream/internal/store"

	"github.com/gorilla/mux"
)

// apiError is an answer to a request that is not served. The text is all that the client learns; the cause is logged.
type apiError struct {
	status int
	text   string
	// challenge is the WWW-Authenticate header of RFC 6750, section 3.
	challenge string
	// transient says that the same request may be served later: a stream request is then answered so that EventSource
	// comes back, anything else with Retry-After.
	transient bool
	allow     string // the Allow header of a 405
	// kind is the answer that this one gives in more words; nil: none.
	kind *apiError
}

func (e *apiError) Error() string { return e.text }

const realm = `Bearer realm="auditstream"`

var (
	errMissingToken = &apiError{status: http.StatusUnauthorized, text: "Missing authentication token", challenge: realm}
	errInvalidToken = &apiError{status: http.StatusUnauthorized, text: "Invalid authentication token",
		challenge: realm + `, error="invalid_token", error_description="The access token is malformed, expired or not meant for this service"`}
	errTokenInURL = &apiError{status: http.StatusUnauthorized, text: "Invalid authentication token",
		challenge: realm + `, error="invalid_token", error_description="A token in the URL is refused: send it in the Authorization header"`}
	errMalformedAuth = &apiError{status: http.StatusBadRequest, text: "Malformed Authorization header: send one of the form 'Bearer TOKEN'",
		challenge: realm + `, error="invalid_request", error_description="Malformed or repeated Authorization header"`}

	errAuditID     = &apiError{status: http.StatusBadRequest, text: "Invalid audit_id: give a whole number from 1 to 9223372036854775807"}
	errIDs         = &apiError{status: http.StatusBadRequest, text: "Invalid ids: give one list of 1 to " + strconv.Itoa(maxIDs) + " whole numbers from 1 to 9223372036854775807, separated by commas"}
	errForbidden   = &apiError{status: http.StatusForbidden, text: "Cross-user access denied"}
	errNoAudit     = &apiError{status: http.StatusNotFound, text: "Audit not found"}
	errForeignHost = &apiError{status: http.StatusMisdirectedRequest, text: "The operators' address is not for web pages: ask by IP address, or by the host of ADMIN_ADDR"}
	errNoFeed      = &apiError{status: http.StatusNotFound, text: "No such feed"}
	errNoRoute     = &apiError{status: http.StatusNotFound, text: "Not found"}

	errInternal       = &apiError{status: http.StatusInternalServerError, text: "Internal server error"}
	errUnavailable    = &apiError{status: http.StatusServiceUnavailable, text: "Internal server error", transient: true}
	errNoKeys         = &apiError{status: http.StatusServiceUnavailable, text: "Signing keys are not available yet", transient: true}
	errTooManyStreams = &apiError{status: http.StatusServiceUnavailable, text: "Too many streams", transient: true}
	errTooManyConns   = &apiError{status: http.StatusServiceUnavailable, text: "Too many connections", transient: true}
	errTooManyRefused = &apiError{status: http.StatusTooManyRequests, text: "Too many refused requests", transient: true}
	errShuttingDown   = &apiError{status: http.StatusServiceUnavailable, text: "Server is shutting down", transient: true}
)

// AnswerHeader marks the answers that no repetition of the request changes, with the value final: refusals for good, 204, and a state
// that ends by a word of its feed. A
// client that reads it takes a proxy's own page for nothing of ours, whatever its status.
const (
	AnswerHeader = "Auditstream-Answer"
	answerFinal  = "final"
)

// IsFinal reports whether an answer is one of a server of ours, and for good. Where a proxy takes the header away, the text of a
// refusal tells.
func IsFinal(resp *http.Response, body []byte) bool {
	if resp.StatusCode != http.StatusNoContent && (resp.StatusCode < 400 || resp.StatusCode > 499) {
		return false
	}
	if resp.Header.Get("Retry-After") != "" { // the token is not valid yet
		return false
	}
	return resp.Header.Get(AnswerHeader) == answerFinal || resp.StatusCode != http.StatusNoContent && finalBody.Match(body)
}

// finalBody is the whole body of a refusal for good. Not that of a path that does not exist, which others word as we do.
var finalBody = func() *regexp.Regexp {
	var texts []string
	for _, e := range []*apiError{errMissingToken, errInvalidToken, errMalformedAuth, errAuditID, errIDs} {
		texts = append(texts, regexp.QuoteMeta(e.text))
	}
	texts = append(texts, errNoAudit.text+`(: audit \d+)?`, errNoFeed.text)
	const more = `: (\\.|[^"\\])*` // what keys a feed has, or the key that is refused
	texts = append(texts, `Invalid ids?`+more, errForbidden.text+`(`+more+`)?`, textNoRow+`(`+more+`)?`)
	return regexp.MustCompile(`^\s*\{"error":\s*"(` + strings.Join(texts, "|") + `)"\}\s*$`)
}()

// final reports whether the same request would be answered so again.
func (e *apiError) final() bool { return !e.transient && e.status < http.StatusInternalServerError }

// The error events that end a stream.
const (
	textNoRow   = "No such row" // of a feed other than audits
	textTimeout = "Stream timeout"
	textExpired = "Token expired"
)

// refusal pairs the answer with what only the log may know.
type refusal struct {
	answer *apiError
	cause  error
}

func (r *refusal) Error() string   { return r.answer.text + ": " + r.cause.Error() }
func (r *refusal) Unwrap() []error { return []error{r.answer, r.cause} }

// because attaches a cause for the log to an answer.
func because(answer *apiError, cause error) error { return &refusal{answer: answer, cause: cause} }

// about names the audit in a refusal of several.
func about(f *store.Feed, id store.Key, err error) error {
	answer := answerTo(err)
	kind := answer.of()
	if kind != errForbidden && kind != errNoAudit {
		return err
	}
	named := *answer
	named.text += ": "
	if f.Name == store.DefaultFeed {
		named.text += "audit "
	}
	named.text += string(id)
	named.kind = kind
	return &named
}

// of is the answer without what it says in more words.
func (e *apiError) of() *apiError {
	if e.kind != nil {
		return e.kind
	}
	return e
}

// answerTo finds the answer to err; an error that names none is an internal one.
func answerTo(err error) *apiError {
	if answer, ok := errors.AsType[*apiError](err); ok {
		return answer
	}
	return errInternal
}

// writeError answers a request that is not served, in JSON, and logs why.
func (s *Handler) writeError(w http.ResponseWriter, r *http.Request, err error) {
	answer := answerTo(err)
	s.logRefusal(r, answer, err)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if answer.challenge != "" {
		h.Set("WWW-Authenticate", answer.challenge)
	}
	if answer.allow != "" {
		h.Set("Allow", answer.allow)
	}
	if answer.final() {
		h.Set(AnswerHeader, answerFinal)
	}
	if answer.transient {
		h.Set("Retry-After", strconv.Itoa(int(max(s.retryDelay().Round(time.Second), time.Second).Seconds())))
	}
	if early, ok := errors.AsType[*notYetValid](err); ok && time.Until(early.from) < maxEarly {
		h.Set("Retry-After", strconv.Itoa(int(max(time.Until(early.from), 0)/time.Second)+1))
		h.Del(AnswerHeader)
	}
	s.writeJSON(w, r, answer.status, errorJSON(answer.text))
}

// maxEarly is how long a token may not be valid yet for its client to be told when to try again.
const maxEarly = time.Hour

// refuseStream answers a stream request that is not served. One that cannot be served for now gets status 200, a random
// time to come back after, and the error event: any other status ends a browser's EventSource for good.
func (s *Handler) refuseStream(w http.ResponseWriter, r *http.Request, err error) {
	answer := answerTo(err)
	if answer.final() {
		s.writeError(w, r, err)
		return
	}
	s.logRefusal(r, answer, err)
	events := eventStream{out: newResponse(w)}
	if err := events.fail(answer.text, s.retryDelay()); err != nil {
		s.cfg.Logger.DebugContext(r.Context(), "refusal not sent", "error", err)
	}
}

func (s *Handler) logRefusal(r *http.Request, answer *apiError, err error) {
	level := slog.LevelDebug
	label := refusedLabel(answer)
	switch {
	case answer.transient && errors.Is(context.Cause(r.Context()), context.Canceled):
		label = refusedGone // not a shutdown, which has another cause
	case answer == errTooManyStreams, answer == errTooManyConns, answer == errTooManyRefused: // have alerts, or lines, of their own
	case answer.transient:
		s.warnAway.Do(func() { level = slog.LevelWarn }) // the metric counts all
	case answer.status >= http.StatusInternalServerError:
		level = slog.LevelWarn
	}
	switch answer {
	case errTooManyConns:
		s.tooManyConnections()
	case errTooManyRefused:
		s.tooManyRefused()
	default:
		s.metrics.refused.WithLabelValues(label).Inc()
	}
	s.cfg.Logger.Log(r.Context(), level, "request refused", "route", routeOf(r), "status", answer.status, "reason", err)
}

// routeOf is what the log may know about a request's path: which route it took. The path itself is the client's choice, and
// some put a token there.
func routeOf(r *http.Request) string {
	route := mux.CurrentRoute(r)
	if route == nil {
		return "none"
	}
	template, err := route.GetPathTemplate()
	if err != nil {
		return "none"
	}
	template = ofFeed(r, template)
	if id, ok := store.ParseKey(pathVar(r, "id")); ok {
		template = strings.NewReplacer("{audit_id}", string(id), "{id}", string(id)).Replace(template)
	}
	return template
}

// ofFeed is a route's template with the feed that a request names, those of audits as the API page has them.
func ofFeed(r *http.Request, template string) string {
	feed := pathVar(r, "feed")
	if feed == store.DefaultFeed {
		template = strings.Replace(template, "{id}", "{audit_id}", 1)
	}
	if store.IsFeedName(feed) { // a token does not look like one
		template = strings.Replace(template, "{feed}", feed, 1)
	}
	return template
}

// writeJSON sends a whole JSON answer, with a deadline that must not outlast it on a connection that is used again.
func (s *Handler) writeJSON(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	s.writeBody(w, r, status, body)
}

func (s *Handler) writeBody(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // a test's recorder has none
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		if _, err := w.Write(body); err != nil {
			s.cfg.Logger.DebugContext(r.Context(), "answer not sent", "error", err)
			return
		}
	}
	_ = rc.Flush()
	_ = rc.SetWriteDeadline(time.Time{})
}

func errorJSON(text string) []byte {
	b, err := json.Marshal(struct {
		Error string `json:"error"`
	}{text})
	if err != nil {
		return []byte(`{"error":"Internal server error"}`) // a string always marshals
	}
	return b
}
