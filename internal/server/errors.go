package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"auditstream/internal/store"

	"github.com/gorilla/mux"
)

// apiError is the answer to a request that is not served. The client learns its text only; the cause is logged.
type apiError struct {
	status int
	text   string
	// challenge is the WWW-Authenticate header of RFC 6750, section 3.
	challenge string
	// transient: the same request may be served later. A stream request is then answered so that EventSource reconnects, any other with
	// Retry-After.
	transient bool
	allow     string // the Allow header of a 405
	// general is the answer without the detail that this one adds; nil: this one has none.
	general *apiError
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

	errInvalidKey  = &apiError{status: http.StatusBadRequest, text: "Invalid audit_id: give a whole number from 1 to 9223372036854775807"}
	errInvalidKeys = &apiError{status: http.StatusBadRequest, text: "Invalid ids: give one list of 1 to " + strconv.Itoa(maxIDs) + " whole numbers from 1 to 9223372036854775807, separated by commas"}
	errForbidden   = &apiError{status: http.StatusForbidden, text: "Cross-user access denied"}
	errNoRow       = &apiError{status: http.StatusNotFound, text: "Audit not found"}
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

// AnswerHeader has the value final in answers that the same request would get again: permanent refusals, 204, and a state whose status
// ends the row by the feed's configuration. By this header clients tell our answers from a proxy's own page with the same status.
const (
	AnswerHeader = "Auditstream-Answer"
	answerFinal  = "final"
)

// IsFinal reports whether an answer comes from this server and is final. Where a proxy removes the header, the refusal's text decides.
func IsFinal(resp *http.Response, body []byte) bool {
	if resp.StatusCode != http.StatusNoContent && (resp.StatusCode < 400 || resp.StatusCode > 499) {
		return false
	}
	if resp.Header.Get("Retry-After") != "" { // the token is not valid yet
		return false
	}
	return resp.Header.Get(AnswerHeader) == answerFinal || resp.StatusCode != http.StatusNoContent && finalBody.Match(body)
}

// finalBody matches the whole body of a permanent refusal, but not of an unknown path, for which other servers have the same text.
var finalBody = func() *regexp.Regexp {
	var texts []string
	for _, e := range []*apiError{errMissingToken, errInvalidToken, errMalformedAuth, errInvalidKey, errInvalidKeys} {
		texts = append(texts, regexp.QuoteMeta(e.text))
	}
	texts = append(texts, errNoRow.text+`(: audit \d+)?`, errNoFeed.text)
	const more = `: (\\.|[^"\\])*` // the detail: what keys a feed has, or which key is refused
	texts = append(texts, `Invalid ids?`+more, errForbidden.text+`(`+more+`)?`, textNoRow+`(`+more+`)?`)
	return regexp.MustCompile(`^\s*\{"error":\s*"(` + strings.Join(texts, "|") + `)"\}\s*$`)
}()

// final reports whether the same request would get the same answer again.
func (e *apiError) final() bool { return !e.transient && e.status < http.StatusInternalServerError }

// The error events that end a stream.
const (
	textNoRow   = "No such row" // of a feed other than audits
	textTimeout = "Stream timeout"
	textExpired = "Token expired"
)

// withCause attaches a cause to an answer, which goes to the log only.
func withCause(answer *apiError, cause error) error { return fmt.Errorf("%w: %w", answer, cause) }

// nameKey adds the refused row's key to the answer to a request for several rows.
func nameKey(f *store.Feed, id store.Key, err error) error {
	answer := answerTo(err)
	kind := answer.withoutDetail()
	if kind != errForbidden && kind != errNoRow {
		return err
	}
	named := *answer
	named.text += ": "
	if f.Name == store.DefaultFeed {
		named.text += "audit "
	}
	named.text += string(id)
	named.general = kind
	return &named
}

// withoutDetail returns the general answer, to compare with.
func (e *apiError) withoutDetail() *apiError {
	if e.general != nil {
		return e.general
	}
	return e
}

// answerTo returns the answer that err wraps, or errInternal.
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

// maxEarly bounds Retry-After for a token that is not valid yet. A token that becomes valid later than that is refused for good.
const maxEarly = time.Hour

// refuseStream answers a stream request that is not served. If it may be served later, it gets status 200, a random time to reconnect
// after, and the error event: any other status ends a browser's EventSource for good.
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
		label = refusedGone // the client; at a shutdown the cause is errDraining
	case answer == errTooManyStreams, answer == errTooManyConns, answer == errTooManyRefused: // these have alerts or log lines of their own
	case answer.transient:
		s.warnOutage.Do(func() { level = slog.LevelWarn }) // the metric counts all
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

// routeOf returns the route that a request took, for the log. The path itself is not logged: clients choose it, and some put a token
// there.
func routeOf(r *http.Request) string {
	route := mux.CurrentRoute(r)
	if route == nil {
		return "none"
	}
	template, err := route.GetPathTemplate()
	if err != nil {
		return "none"
	}
	template = templateForFeed(r, template)
	if id, ok := store.ParseKey(pathVar(r, "id")); ok {
		template = strings.NewReplacer("{audit_id}", string(id), "{id}", string(id)).Replace(template)
	}
	return template
}

// templateForFeed returns a route's template with the request's feed in it, for audits as the API page writes it.
func templateForFeed(r *http.Request, template string) string {
	feed := pathVar(r, "feed")
	if feed == store.DefaultFeed {
		template = strings.Replace(template, "{id}", "{audit_id}", 1)
	}
	if store.IsFeedName(feed) { // no token matches
		template = strings.Replace(template, "{feed}", feed, 1)
	}
	return template
}

// writeJSON sends a whole JSON answer with a write deadline, and clears the deadline, because the connection may be used again.
func (s *Handler) writeJSON(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	s.writeBody(w, r, status, body)
}

func (s *Handler) writeBody(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // fails for a test's recorder only
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
	b, _ := json.Marshal(map[string]string{"error": text}) // a string always marshals
	return b
}
