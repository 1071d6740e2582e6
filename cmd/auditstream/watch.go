package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"auditstream/internal/store"
)

// watch's further exit statuses, for scripts.
const (
	exitAuditFailed = 3
	exitRefused     = 4
)

// maxWatched is how many rows a server accepts for one stream.
const maxWatched = 100

type watchCmd struct {
	Rows  []string `arg:"" name:"row" help:"What to watch: the id of an audit; FEED/KEY, a row of another feed, as in jobs/42; or FEED/, all of yours in it that have not ended. A % in a key is %25."`
	URL   string   `name:"url" env:"AUDITSTREAM_URL" default:"http://127.0.0.1:8080" help:"Where auditstream serves."`
	Token string   `name:"token" env:"AUDITSTREAM_TOKEN" placeholder:"JWT" help:"Token of the rows' owner. Prefer the variable: other users of the machine see flags."`
	Until int      `name:"until" default:"100" help:"Stop with status 0 once every row has this progress, in per cent; 100: when it has completed."`
}

// Help returns the text that kong shows below the usage.
func (*watchCmd) Help() string {
	return "In a terminal, shows a bar for each row; otherwise prints one JSON line for each event. Several rows of one feed, 100 at most, share " +
		"one connection. Reconnects by itself. FEED/ goes on until it is stopped, shows the newest 500, and what begins later. " +
		"Exit status: 0 completed, 3 a row has failed, or ended otherwise, " +
		"4 the server refuses (the token, or one of the rows), 1 stopped before that, 2 wrong usage."
}

// exitError ends the program with a status of its own.
type exitError struct {
	code int
	error
}

func (e exitError) Unwrap() error { return e.error }

func (c *watchCmd) Run(ctx context.Context, std streams) error {
	base, rows, err := c.check()
	if err != nil {
		return err
	}
	client := newWatchClient()
	defer client.CloseIdleConnections()
	show := newWatchDisplay(std, rows)
	defer show.close()
	f := &rowsWatch{client: client, base: base, token: c.Token, until: c.Until, show: show, rows: rows, open: rows.keys, states: make(map[store.Key]rowState)}
	return f.follow(ctx)
}

func (c *watchCmd) check() (base string, rows rowSelection, err error) {
	u, err := url.Parse(c.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", rows, usageError{errors.New("--url (AUDITSTREAM_URL) is no address of a server; give one like https://progress.example.com, without user, query and fragment")}
	}
	if rows, err = parseRowSelection(c.Rows); err != nil {
		return "", rows, usageError{err}
	}
	if c.Until < 0 || c.Until > 100 {
		return "", rows, usageError{fmt.Errorf("--until=%d is no percentage; give a whole number from 0 to 100", c.Until)}
	}
	if c.Until < 100 && rows.keys == nil {
		return "", rows, usageError{fmt.Errorf("--until=%d with %s: what is all of yours has no end; name the rows", c.Until, rows.names(nil))}
	}
	c.Token = strings.TrimSpace(c.Token)
	return strings.TrimRight(u.String(), "/"), rows, nil
}

// newWatchClient returns a client that follows no redirects: the token must go only to the address that was given.
func newWatchClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = 30 * time.Second
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// printable replaces characters that would control the terminal or reverse text in it: the server's texts are not trusted.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

// escaped returns the same JSON as one line, in which characters that would control the terminal or reverse text in it are \uXXXX.
func escaped(data string) string {
	var line bytes.Buffer
	if json.Compact(&line, []byte(data)) != nil {
		return printable(data) // not JSON, which parse refuses
	}
	var b strings.Builder
	for _, r := range line.String() {
		switch high, low := utf16.EncodeRune(r); {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// rowState is an event's content: a row's state, or an error.
type rowState struct {
	Key      store.Key `json:"-"` // empty: an error event
	Status   string    `json:"status"`
	Progress int       `json:"progress"`
	Message  string    `json:"message"`
	Error    string    `json:"error"`
	End      bool      `json:"-"` // endComment came: this is the row's last state
}

// parse parses an event's data. A row may have further fields of any type.
func (r rowSelection) parse(data string) (w rowState, ok bool) {
	var id struct {
		Audit json.RawMessage `json:"audit_id"`
		Row   json.RawMessage `json:"id"`
	}
	if json.Unmarshal([]byte(data), &w) != nil || json.Unmarshal([]byte(data), &id) != nil {
		return w, false
	}
	key := id.Row
	if r.audits() {
		key = id.Audit
	}
	if text := string(key); len(key) > 0 && key[0] == '"' {
		_ = json.Unmarshal(key, &text) // cannot fail: it was unmarshalled before
		w.Key = store.Key(text)
	} else if integer.MatchString(text) && text != "0" {
		w.Key = store.Key(text)
	}
	return w, w.Key != "" || w.Error != ""
}

func (w rowState) terminal() bool { return w.Status == "completed" || w.Status == "failed" || w.End }
