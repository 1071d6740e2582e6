package server

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"auditstream/internal/store"

	"github.com/gorilla/mux"
)

// Feed is one adopted table, and who hands out its rows' states.
type Feed struct {
	*store.Feed
	Hub Hub
}

// ErrNoFeed is Config.Feeds' error where there is no feed of a name. Any other passes.
var ErrNoFeed = errors.New("there is no such feed")

// feed finds what a request's path names.
func (s *Handler) feed(r *http.Request) (Feed, error) {
	name := pathVar(r, "feed")
	if s.cfg.Feeds == nil {
		if name != store.DefaultFeed {
			return Feed{}, errNoFeed
		}
		return Feed{store.Audits, s.cfg.Hub}, nil
	}
	f, err := s.cfg.Feeds(name)
	switch {
	case errors.Is(err, ErrNoFeed):
		return Feed{}, errNoFeed
	case err != nil:
		return Feed{}, because(errUnavailable, err)
	}
	return f, nil
}

// pathVar is a part of the path, which is matched as it was sent: keys may have slashes in them.
func pathVar(r *http.Request, name string) string {
	text, err := url.PathUnescape(mux.Vars(r)[name])
	if err != nil {
		return ""
	}
	return text
}

// keys finds what a request asks for; nil: all that is the viewer's.
type keys func(r *http.Request, f *store.Feed) ([]store.Key, error)

// pathKey is the row that a path asks for.
func pathKey(r *http.Request, f *store.Feed) ([]store.Key, error) {
	key, ok := f.Key.Parse(pathVar(r, "id"))
	if !ok {
		return nil, wordedFor(f, errAuditID)
	}
	return []store.Key{key}, nil
}

// queryKeys reads the parameter ids, in its order, without what it repeats; nil: there is none. It reads the query by itself:
// net/url's Query drops what it does not understand, and a list that is lost would be a request for all. A comma that belongs to a key is
// written %2C.
func queryKeys(r *http.Request, f *store.Feed) ([]store.Key, error) {
	wrong := wordedFor(f, errIDs)
	var texts []string
	for _, parameter := range strings.Split(r.URL.RawQuery, "&") {
		name, list, _ := strings.Cut(parameter, "=")
		if name, err := url.QueryUnescape(name); err != nil || strings.Contains(parameter, ";") {
			return nil, wrong
		} else if name != "ids" {
			if _, err := url.QueryUnescape(list); err != nil {
				return nil, wrong
			}
			continue
		}
		if f.Key != store.TextKeys { // no comma is in a key, so that it may be written either way
			list = strings.ReplaceAll(strings.ReplaceAll(list, "%2C", ","), "%2c", ",")
		}
		if texts != nil || strings.Count(list, ",") >= maxIDs {
			return nil, wrong
		}
		texts = strings.Split(list, ",")
	}
	var ids []store.Key
	for _, text := range texts {
		text, err := url.QueryUnescape(text)
		if err != nil {
			return nil, wrong
		}
		id, ok := f.Key.Parse(text)
		if !ok {
			return nil, wrong
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// wordedFor is an answer in a feed's words: those of audits are the API page's.
func wordedFor(f *store.Feed, answer *apiError) *apiError {
	integers := f.Key == store.IntegerKeys
	if f.Name == store.DefaultFeed && (integers || answer == errNoAudit) {
		return answer
	}
	worded := *answer
	worded.kind = answer
	one := map[store.KeyType]string{store.UUIDKeys: "a UUID", store.TextKeys: "a text of 1 to 255 bytes"}[f.Key]
	switch {
	case answer == errNoAudit:
		worded.text = textNoRow
	case integers:
		worded.text = strings.Replace(worded.text, "audit_id", "id", 1)
	case answer == errAuditID:
		worded.text = "Invalid id: give " + one
	case answer == errIDs:
		worded.text = strings.Replace(errIDs.text, "whole numbers from 1 to 9223372036854775807", "ids, each "+one, 1)
	}
	return &worded
}
