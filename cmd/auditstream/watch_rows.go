package main

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"auditstream/internal/store"
)

// rowSelection are the rows to watch: rows of one feed by their keys, or all rows of the user in the feed that have not ended.
type rowSelection struct {
	feed string
	keys []store.Key // nil: all
}

var integer = regexp.MustCompile(`^[0-9]+$`)

// parseRowSelection parses arguments: 42 is an audit, FEED/KEY a row of any feed, and FEED/ all of the user's rows.
func parseRowSelection(args []string) (rows rowSelection, err error) {
	for _, arg := range args {
		feed, text, found := strings.Cut(arg, "/")
		if !found && integer.MatchString(arg) {
			feed, text = store.DefaultFeed, arg
		} else if !found || !store.IsFeedName(feed) {
			return rows, fmt.Errorf("%q names no row; give an audit's id, FEED/KEY like jobs/42, or FEED/ for all of yours", arg)
		}
		if rows.feed != "" && feed != rows.feed {
			return rows, fmt.Errorf("%s is not of the feed %s; one watch shows rows of one feed: run another one beside it", arg, rows.feed)
		}
		rows.feed = feed
		if text == "" {
			if len(args) > 1 {
				return rows, fmt.Errorf("%s stands for all of yours; name it alone, or rows alone", arg)
			}
			return rows, nil
		}
		key, err := parseKey(feed, text, !found)
		if err != nil {
			return rows, err
		}
		if slices.Contains(rows.keys, key) {
			return rows, fmt.Errorf("%s was named before; name each row once", arg)
		}
		rows.keys = append(rows.keys, key)
	}
	if len(rows.keys) > maxWatched {
		return rows, fmt.Errorf("%d rows are too many for one stream; name at most %d", len(rows.keys), maxWatched)
	}
	return rows, nil
}

// parseKey parses a key as it is in URLs. Only the server knows the type of a feed's keys.
func parseKey(feed, text string, isInteger bool) (store.Key, error) {
	if isInteger {
		if key, ok := store.IntegerKeys.Parse(text); ok {
			return key, nil
		}
		return "", fmt.Errorf("audit %s is no id; give a whole number from 1 to 9223372036854775807", text)
	}
	key, err := url.PathUnescape(text)
	if err != nil {
		return "", fmt.Errorf("%s/%s has a %% that is no percent-encoding; write %%25 for one", feed, text)
	}
	if k, ok := store.TextKeys.Parse(key); ok {
		return k, nil
	}
	return "", errors.New("a key is empty, longer than 255 bytes or no printable text; give the row's key, percent-encoded where it has a %")
}

func (r rowSelection) audits() bool { return r.feed == store.DefaultFeed }

// name returns a row's name for people.
func (r rowSelection) name(key store.Key) string {
	if r.audits() {
		return "audit " + printable(string(key))
	}
	return printable(r.feed + "/" + string(key))
}

// names returns the names of some rows for people.
func (r rowSelection) names(keys []store.Key) string {
	const named = 5
	switch {
	case r.keys == nil:
		return r.feed + "/"
	case len(keys) == 1:
		return r.name(keys[0])
	}
	each, before := r.feed+"/", ""
	if r.audits() {
		each, before = "", "audits "
	}
	var texts []string
	for _, key := range keys[:min(len(keys), named)] {
		texts = append(texts, each+printable(string(key)))
	}
	names := before + strings.Join(texts, ", ")
	if more := len(keys) - named; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	return names
}

// path returns the URL's path for a stream of some of the rows.
func (r rowSelection) path(keys []store.Key) string {
	base := "/api/v1/sse/" + r.feed
	switch {
	case r.keys == nil:
		return base + "/progress"
	case len(keys) == 1 && strings.Trim(string(keys[0]), ".") != "": // proxies remove dot segments from a path
		return base + "/" + url.PathEscape(string(keys[0])) + "/progress"
	}
	var texts []string
	for _, key := range keys {
		texts = append(texts, url.QueryEscape(string(key)))
	}
	return base + "/progress?ids=" + strings.Join(texts, ",")
}

// find finds the server's key among those that were asked for. The server may write it differently: a UUID in lower case.
func (r rowSelection) find(keys []store.Key, key store.Key) (store.Key, bool) {
	if slices.Contains(keys, key) {
		return key, true
	}
	if _, ok := store.UUID(key); ok {
		for _, k := range keys {
			if strings.ToLower(string(k)) == string(key) {
				return k, true
			}
		}
	}
	return key, r.keys == nil
}
