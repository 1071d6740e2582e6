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

// Feed is one adopted table with its hub.
type Feed struct {
	*store.Feed
	Hub Hub
}

// ErrNoFeed is Config.Feeds' error if there is no feed of that name. Any other error counts as temporary.
var ErrNoFeed = errors.New("there is no such feed")

// feed finds the feed that a request's path names.
func (s *Handler) feed(r *http.Request) (Feed, error) {
	name := pathVar(r, "feed")
	if s.cfg.Feeds == nil {
		if name != store.DefaultFeed {
			return Feed{}, errNoFeed
		}
		return Feed{store.Audits, s.cfg.Hub}, nil
	}
	f, err := s.cfg.Feeds(r.Context(), name)
	switch {
	case errors.Is(err, ErrNoFeed):
		return Feed{}, errNoFeed
	case err != nil:
		return Feed{}, withCause(errUnavailable, err)
	}
	return f, nil
}

// pathVar returns a variable of the path, decoded. The router matches the encoded path, because a key may contain slashes.
func pathVar(r *http.Request, name string) string {
	text, err := url.PathUnescape(mux.Vars(r)[name])
	if err != nil {
		return ""
	}
	return text
}

// keyFinder finds the keys that a request asks for; nil stands for all rows of the viewer.
type keyFinder func(r *http.Request, f *store.Feed) ([]store.Key, error)

// pathKey is the keyFinder of routes with an id in the path.
func pathKey(r *http.Request, f *store.Feed) ([]store.Key, error) {
	key, ok := f.Key.Parse(pathVar(r, "id"))
	if !ok {
		return nil, wordedFor(f, errInvalidKey)
	}
	return []store.Key{key}, nil
}

// queryKeys is the keyFinder of the parameter ids: its keys in order, without repetitions, or nil without the parameter. It parses the query
// itself, because net/url's Query drops what it cannot parse, and without its list the request would ask for all rows. A comma inside a key
// is written %2C.
func queryKeys(r *http.Request, f *store.Feed) ([]store.Key, error) {
	wrong := wordedFor(f, errInvalidKeys)
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
		if f.Key != store.TextKeys { // other keys have no comma, so %2C separates, too
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

// wordedFor returns an answer with the text for a feed: for audits the API page's, for others without the word audit.
func wordedFor(f *store.Feed, answer *apiError) *apiError {
	integers := f.Key == store.IntegerKeys
	if f.Name == store.DefaultFeed && (integers || answer == errNoRow) {
		return answer
	}
	worded := *answer
	worded.general = answer
	one := map[store.KeyType]string{store.UUIDKeys: "a UUID", store.TextKeys: "a text of 1 to 255 bytes"}[f.Key]
	switch {
	case answer == errNoRow:
		worded.text = textNoRow
	case integers:
		worded.text = strings.Replace(worded.text, "audit_id", "id", 1)
	case answer == errInvalidKey:
		worded.text = "Invalid id: give " + one
	case answer == errInvalidKeys:
		worded.text = strings.Replace(errInvalidKeys.text, "whole numbers from 1 to 9223372036854775807", "ids, each "+one, 1)
	}
	return &worded
}
